"""Reads messages, one JSON string a line, with Python's e-mail parser, and says what it found."""
import email
import email.policy
import json
import sys


def defects(part):
    found = [str(d) for d in part.defects]
    for _, value in part.items():
        found += [str(d) for d in getattr(value, "defects", [])]
    return found


for line in sys.stdin:
    m = email.message_from_string(json.loads(line), policy=email.policy.SMTPUTF8)
    found = []
    for part in m.walk():
        found += defects(part)
    answer = {"type": m.get_content_type(), "report": m.get_param("report-type") or "", "defects": found,
              "from": str(m["From"]), "to": str(m["To"]), "subject": str(m["Subject"]), "auto": str(m["Auto-Submitted"])}
    parts = m.get_payload() if m.is_multipart() else [m]
    answer["parts"] = [p.get_content_type() for p in parts]
    answer["text"] = parts[0].get_payload(decode=True).decode(parts[0].get_content_charset()).replace("\r\n", "\n")
    if len(parts) == 3:
        status = parts[1].get_payload()
        if parts[1].get_content_subtype() == "global-delivery-status":  # not known to this parser
            blocks = parts[1].as_string().replace("\r\n", "\n").split("\n\n")[1:]
            status = [email.message_from_string(b, policy=email.policy.SMTPUTF8) for b in blocks]
        answer["status"] = [[[k, str(v)] for k, v in b.items()] for b in status if len(b)]
        answer["headers"] = parts[2].get_payload(decode=True).decode("latin-1").replace("\r\n", "\n")
    print(json.dumps(answer))
