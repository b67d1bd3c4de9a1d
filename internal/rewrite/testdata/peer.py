# Reads header sections with the parser of the Python standard library. Each
# message on standard input comes after a line with its length; its answer is a
# line of JSON: for From and Reply-To the list of [display name, address], and the
# names of the defects that the parser found.
import json, sys
from email import policy
from email.parser import BytesParser


def people(message, name):
    field = message[name]
    if field is None:
        return []
    return [[a.display_name, a.addr_spec] for a in field.addresses]


while line := sys.stdin.buffer.readline():
    message = BytesParser(policy=policy.default).parsebytes(sys.stdin.buffer.read(int(line)))
    answer = {name: people(message, name) for name in ("From", "Reply-To")}
    answer["froms"] = len(message.get_all("From", []))
    answer["defects"] = [type(d).__name__ for n in ("From", "Reply-To") if message[n] is not None for d in message[n].defects]
    print(json.dumps(answer), flush=True)
