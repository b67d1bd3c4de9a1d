# Verifies messages with dkimpy: python3-dkim, python3-nacl. The argument is a
# file of keys, "name<TAB>record" a line. Each message on standard input comes
# after a line with its length; its answer is a line of "B=RESULT" words, B being
# the first sixteen base64 characters of b=.
import re, sys
import dkim

zone = dict(line.rstrip("\n").split("\t", 1) for line in open(sys.argv[1]))


def txt(name, timeout=5):
    return zone.get(name.decode().lower().rstrip("."), "").encode() or None


def prefix(value):
    found = re.search(rb"(?:^|;)\s*b\s*=([^;]*)", value)
    return re.sub(rb"[^0-9A-Za-z+/=]", b"", found.group(1))[:16].decode() if found else ""


def judge(message, index):
    try:
        return "pass" if dkim.DKIM(message, minkey=1024).verify(index, dnsfunc=txt) else "fail"
    except Exception as why:
        return type(why).__name__


print("ready", flush=True)
while line := sys.stdin.buffer.readline():
    message = sys.stdin.buffer.read(int(line))
    try:
        fields = [v for n, v in dkim.rfc822_parse(message)[0] if n.lower() == b"dkim-signature"]
    except Exception as why:
        fields = []
    print(" ".join(prefix(v) + "=" + judge(message, i) for i, v in enumerate(fields)), flush=True)
