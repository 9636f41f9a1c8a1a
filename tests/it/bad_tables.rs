//! The tables of bad requests: one a line, `KIND` standing for `tool` or `function`.

/// Bodies that are no JSON object.
pub const NOT_OBJECTS: &str = r#"{
}
nul
null
true
5
"x"
[]
[{}]
{}{}
{} x
{"a":}
{"a":1,}
{'a':1}
{a:1}
{"a" 1}
{"a":01}
{"a":NaN}
{"a":"\ud800"}
{"a":"\x"}
// {}
a=1&b=2"#;

/// Unknown fields and duplicate keys.
pub const WRONG_OBJECTS: &str = r#"
{"KIND_id":"refused","unknown":1}
{"KIND_id":"refused","id":"x"}
{"KIND_id":"refused","definition_description":"y"}
{"KIND_id":"refused","KIND_description":"a","KIND_description":"b"}
{"KIND_id":"refused","KIND_metadata":{"a":1,"a":2}}
{"KIND_id":"refused","KIND_metadata":{"a":[{"b":1,"b":2}]}}
"#;

/// Keys that have a meaning, with values of a wrong type.
pub const WRONG_METADATA: &str = r#"
{"runtime":7}
{"runtime":["binary"]}
{"version":5}
{"type":5}
{"subtype":{}}
{"protocol":5}
{"url":5}
{"input_schema":"x"}
{"output_schema":5}
{"api_spec":[]}
{"source_url":5}
{"sha256":5}
{"entrypoint":5}
{"entrypoint":["sh"]}
{"args":"x"}
{"args":[1]}
{"env":[]}
{"env":{"A":1}}
{"secrets":5}
{"stdin":5}
{"output":5}
{"limits":5}
{"limits":{"timeout_ms":"x"}}
{"limits":{"timeout_ms":-1}}
{"limits":{"output_bytes":"1"}}
{"idempotent":"yes"}
{"retries":"x"}
{"retries":{"max":"x"}}
{"max_concurrency":"one"}
{"max_concurrency":-1}
"#;

/// Ids that no definition has.
pub const UNKNOWN_IDS: &str = "é
名
🦀
a b
%
%zz
'; REMOVE TABLE tool;--
`x`
tool:⟨x⟩
$where
null
0
-1
[]
{}
x:y:z
x:^1
x:latest
\\
...
?
#
\u{202e}";

/// Ids that no definition may have; the first is empty.
pub const FORBIDDEN_IDS: &str = "
/
.
..
register
refresh
import
export";

/// Paths and methods that lead nowhere.
pub const WRONG_ROUTES: &str = "
GET /tool
PUT /tool
DELETE /tool
PATCH /tool
OPTIONS /tool
GET /tools
PUT /tools
DELETE /tools
PATCH /tools
GET /function
PUT /function
DELETE /function
GET /functions
PUT /functions
DELETE /functions
POST /tool/binary-increment-tool
PATCH /tool/binary-increment-tool
TRACE /tool/binary-increment-tool
POST /function/weather_lookup:v1.0.0-stable
BREW /function/weather_lookup:v1.0.0-stable
GET /tool/
POST /tool/register
PUT /tool/register/x
DELETE /tool/register/x
GET /nope
POST /nope
GET /Tool/binary-increment-tool
GET /tool/a/b/c
GET //tool
GET /tool/binary-increment-tool/
GET /tool/binary-increment-tool/nope
POST /healthz
DELETE /system
POST /openapi.json
GET /.git/config
GET /etc/passwd
GET /%2e%2e%2f%2e%2e%2fetc%2fpasswd
GET /execution/not-a-uuid
GET /execution/00000000-0000-0000-0000-000000000000
";

/// Content types other than JSON.
pub const WRONG_CONTENT: [&str; 9] = [
    "text/plain",
    "text/json",
    "application/xml",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonx",
    "application/octet-stream",
    "json",
    "*/*",
];

/// What a name rebound to loopback would send.
pub const FOREIGN_HOSTS: [&str; 4] =
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example"];

/// What a web page elsewhere would send.
pub const FOREIGN_ORIGINS: [&str; 4] =
    ["http://evil.example", "https://evil.example", "http://localhost.evil.example", "null"];

/// Filters that are malformed, or name what is not there.
pub const WRONG_FILTERS: &str = r#"
{"nope":1}
{"":1}
{"id; DROP":1}
{"password":{"$exists":true}}
{"$where":"1"}
{"$expr":{}}
{"$in":[1]}
{"KIND_id":{"$where":1}}
{"KIND_id":{"$nope":1}}
{"KIND_id":{"$in":5}}
{"KIND_id":{"$regex":"("}}
{"KIND_id":{"$not":5}}
{"KIND_id":{"$eq":1,"plain":2}}
{"KIND_id":"a","KIND_id":"b"}
{"KIND_search_tags":{"$in":{}}}
{"KIND_search_tags":{"$nin":"x"}}
{"KIND_search_tags":{"$all":1}}
{"KIND_search_tags":{"$elemMatch":5}}
{"KIND_metadata.$where":1}
{"$and":5}
{"$and":[5]}
{"$or":{}}
{"$or":["x"]}
"#;

/// Frames for `/KIND` that are refused; `RUN` stands for a request that would be served.
pub const WRONG_FRAMES: &str = r#"
hello
{
nul
null
true
5
"x"
[]
[{"KIND_id":"x","input_data":{}}]
{"KIND_id":"x","input_data":{}}{}
{"KIND_id":"x","input_data":{},}
{'KIND_id':'x','input_data':{}}
{"KIND_id":"\ud800","input_data":{}}
{}
{"KIND_id":"x"}
{"input_data":{}}
{"KIND_id":null,"input_data":{}}
{"KIND_id":5,"input_data":{}}
{"KIND_id":["x"],"input_data":{}}
{"KIND_id":{},"input_data":{}}
{"KIND_id":true,"input_data":{}}
{"KIND_id":"","input_data":{}}
{"KIND_id":"unknown","input_data":{}}
{"KIND_id":"unknown","input_data":{},"unknown":1}
{"KIND_id":"\u0000","input_data":{}}
{"KIND_id":"../../etc/passwd","input_data":{}}
{"KIND_id":"a/b","input_data":{}}
{"KIND_id":"x:^1","input_data":{}}
{"KIND_id":"x:latest","input_data":{}}
{"KIND_id":"$where","input_data":{}}
{"KIND_id":"名🦀","input_data":{}}
{RUN,"input_data":null}
{RUN,"input_data":5}
{RUN,"input_data":"x"}
{RUN,"input_data":true}
{RUN,"input_data":[]}
{RUN,"input_data":[{"value":1}]}
{RUN,RUN,"input_data":{}}
{RUN,"input_data":{},"input_data":{}}
{RUN,"input_data":{"value":1,"value":2}}
{RUN,"input_data":{"a":[{"b":1,"b":2}]}}
{RUN,"input_data":{},"options":5}
{RUN,"input_data":{},"options":"stream"}
{RUN,"input_data":{},"options":[]}
{RUN,"input_data":{},"options":{"unknown":1}}
{RUN,"input_data":{},"options":{"Stream":true}}
{RUN,"input_data":{},"options":{"stream":"yes"}}
{RUN,"input_data":{},"options":{"stream":1}}
{RUN,"input_data":{},"options":{"priority":10}}
{RUN,"input_data":{},"options":{"priority":-1}}
{RUN,"input_data":{},"options":{"priority":1.5}}
{RUN,"input_data":{},"options":{"priority":"9"}}
{RUN,"input_data":{},"options":{"timeout_ms":-1}}
{RUN,"input_data":{},"options":{"timeout_ms":"1"}}
{RUN,"input_data":{},"options":{"timeout_ms":{}}}
{RUN,"input_data":{},"options":{"idempotency_key":5}}
{RUN,"input_data":{},"options":{"priority":1,"priority":2}}
"#;

/// WebSocket paths that lead nowhere.
pub const WRONG_PATHS: [&str; 9] = [
    "/",
    "/tools",
    "/Tool",
    "/tool/",
    "/tool/binary-increment-tool",
    "/functions",
    "/nope",
    "//tool",
    "/%74ool",
];
