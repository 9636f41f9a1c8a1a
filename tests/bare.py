import json, sys
def handler(input):
    return {}
for line in sys.stdin:
    sys.stdout.write(json.dumps({'ok': handler(json.loads(line)['input'])}) + '\n')
    sys.stdout.flush()
