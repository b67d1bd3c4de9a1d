"""python3-dkim as a peer: one JSON request a line, one answer a line."""
import base64
import json
import sys

import authres  # noqa: F401  dkim.ARC needs it
import dkim


def verify(q):
    lookup = lambda name, timeout=5: q["dns"].get(name.decode().rstrip("."), "").encode()
    cv, sets, reason = dkim.ARC(base64.b64decode(q["message"])).verify(dnsfunc=lookup)
    return {"result": cv.decode() if cv else "fail", "reason": reason}


def seal(q):
    fields = dkim.ARC(base64.b64decode(q["message"]), linesep=b"\r\n").sign(
        q["selector"].encode(), q["domain"].encode(), q["key"].encode(), q["domain"].encode(),
        timestamp=q["time"])
    return {"fields": base64.b64encode(b"".join(fields)).decode()}


for line in sys.stdin:
    q = json.loads(line)
    try:
        answer = {"verify": verify, "seal": seal}[q["op"]](q)
    except Exception as e:
        answer = {"error": repr(e)}
    print(json.dumps(answer), flush=True)
