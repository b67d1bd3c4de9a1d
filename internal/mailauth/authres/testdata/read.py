"""Reads Authentication-Results fields, one JSON string a line, with python3-authres."""
import json
import sys

import authres

for line in sys.stdin:
    try:
        h = authres.AuthenticationResultsHeader.parse(json.loads(line))
        answer = {"id": h.authserv_id, "results": [
            {"method": r.method, "value": r.result, "comment": r.result_comment or "", "reason": r.reason or "",
             "properties": [{"type": p.type, "name": p.name, "value": p.value or ""} for p in r.properties]}
            for r in h.results if hasattr(r, "method")]}
    except Exception as e:
        answer = {"error": repr(e)}
    print(json.dumps(answer))
