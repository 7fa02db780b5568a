---@meta perigee

-- What a function of Perigee can use, for editors with lua-language-server. `perigee new` writes this file; it is not part of the function.
-- The guide to all of it is docs/lua.md. Times are seconds since the epoch; durations are texts like "90s" or "1h30m", or seconds.

---@alias perigee.Duration string|number "90s", "15m", "1h30m", "7d", or a number of seconds
---@alias perigee.JSON table|string|number|boolean|userdata|nil anything that JSON can hold
---@alias perigee.Integer userdata a whole number that a Lua number cannot hold, with all its digits; see json.integer
---@alias perigee.Function fun(event: perigee.Event, ctx: perigee.Context): perigee.JSON

---What happened. The first argument of the function.
---@class perigee.Event
---@field data any the payload, if it is JSON; nil for null and for what is no JSON. For a device a table of its fields. A list has its length in n
---@field raw? string the payload as it came
---@field params table<string, string> the {names} in the trigger's topic
---@field topic? string the MQTT topic; nil for what is no message
---@field type "message"|"reading"|"tick"|"state"|"result"|"timer"|"gateway"|"invoke"|"reply" what kind of event it is
---@field device? string of a reading: the device's name
---@field timer? string of a timer: its name
---@field reply? string of the answer to an HTTP call: the name that the call gave it
---@field subject string what it is about: the topic, the device, the state's name, the timer
---@field source string who says so: mqtt, device/cellar, function/overheat
---@field time number when it happened
---@field time_ok boolean whether the clock was right at that time
---@field retained boolean the broker had kept it
---@field attempt integer 1, or more if earlier attempts failed
---@field key? string the key; nil if the function has key: none
---@field id string unique

---What the function runs in. Its second argument.
---@class perigee.Context
---@field env table<string, any> env: of function.yaml, with this gateway's settings:
---@field now number the time now; it does not move while the function runs
---@field now_ok boolean whether the clock is right
---@field gateway string the gateway's id
---@field name string the function's name
---@field revision string the digest of its code

---Values of the event's key: each key has its own. No permission is needed. Names have at most 200 bytes. An error with key: none.
---@class perigee.state
state = {}

---Returns the value, or default if there is none.
---@generic T
---@param name string
---@param default? T
---@return T|any
function state.get(name, default) end

---Sets the value; nil deletes it. A bad-output fault if JSON cannot hold it.
---@param name string
---@param value perigee.JSON
function state.set(name, value) end

---Adds to a number (0 if there is none) and returns the new one. An error if the value is no number.
---@param name string
---@param by? number 1 if absent
---@return number
function state.incr(name, by) end

---Deletes the value, if there is one.
---@param name string
function state.delete(name) end

---Returns the names that start with prefix, in order.
---@param prefix? string all if absent
---@return string[]
function state.keys(prefix) end

---Values of the function, across keys. If what was read is changed by another event before this one is committed, the event runs again.
---@class perigee.shared
shared = {}

---As state.get.
---@generic T
---@param name string
---@param default? T
---@return T|any
function shared.get(name, default) end

---As state.set.
---@param name string
---@param value perigee.JSON
function shared.set(name, value) end

---Adds to a number. Returns nothing: it does not read, so it never conflicts with other events.
---@param name string
---@param by? number 1 if absent
function shared.incr(name, by) end

---As state.delete.
---@param name string
function shared.delete(name) end

---As state.keys.
---@param prefix? string
---@return string[]
function shared.keys(prefix) end

---@class perigee.PublishOptions
---@field qos? 0|1|2 0 if absent
---@field retain? boolean
---@field not_after? perigee.Duration of no use later
---@field id? boolean adds an _id to a JSON object, by which a receiver can drop repeats

---Publishes to the MQTT broker, when the invocation has ended well. Permission: publish. Limits: effects, effect_bytes. A bad-output fault if the topic is
---empty, starts with $ or has a wildcard.
---@param topic string
---@param value perigee.JSON a string is sent as it is, nil as an empty payload, anything else as JSON
---@param options? perigee.PublishOptions
function publish(topic, value, options) end

---Ends the invocation at once and runs the event again. Nothing that the invocation did counts.
---@param why? string
---@param after? perigee.Duration the usual back-off if absent
function retry(why, after) end

---@class perigee.device
device = {}

---@class perigee.WriteOptions
---@field for? perigee.Duration after which it goes back to its safe value; write ["for"] = "10s"
---@field not_after? perigee.Duration of no use later

---Writes to a device, when the invocation has ended well. Permission: devices.write. Limits: effects, effect_bytes.
---@param name string
---@param value boolean|number|string
---@param options? perigee.WriteOptions
function device.write(name, value, options) end

---Returns the last reading: the value itself if the device has one field, a table of its fields if it has more, nil if there is none yet; nil and
---why if the device is not connected. Permission: devices.read. Limit: 256 different reads.
---@param name string
---@return any reading
---@return string? why
function device.read(name) end

---@class perigee.stream
stream = {}

---Appends a record to a stream, on its way to the cloud. Permission: streams. Limits: effects, effect_bytes.
---@param name string
---@param value perigee.JSON
function stream.append(name, value) end

---@class perigee.timer
timer = {}

---Sets a timer of this key, or replaces it: the function runs with event.timer == name. It survives a restart. Limits: effects, timers.
---@param name string
---@param after perigee.Duration longer than 0
function timer.set(name, after) end

---Cancels the timer, if it is set.
---@param name string
function timer.cancel(name) end

---@class perigee.secret
secret = {}

---Returns the text of a secret. Permission: secrets. An error if the gateway does not have it any more.
---@param name string
---@return string
function secret.get(name) end

---Logs its arguments with blanks between; tables as JSON. Limit: log_bytes.
---@class perigee.log
---@overload fun(...: any)
log = {}

---Logs at the level debug.
---@param ... any
function log.debug(...) end

---Logs at the level info.
---@param ... any
function log.info(...) end

---Logs at the level warn.
---@param ... any
function log.warn(...) end

---Logs at the level error. It does not end the function; error() does.
---@param ... any
function log.error(...) end

---HTTP calls. They go out when the invocation has ended well; an answer comes as an event with event.reply, and event.data as perigee.Reply. Permission: http.
---@class perigee.http
http = {}

---@class perigee.HTTPOptions
---@field headers? table<string, string> at most 32, with 8 KiB
---@field reply? string the answer comes as an event with this in event.reply
---@field timeout? perigee.Duration of one attempt; 10 s, at most 60 s
---@field not_after? perigee.Duration of no use later; 1 h, at most 7 d

---event.data of the answer to an HTTP call.
---@class perigee.Reply
---@field status? integer such as 200; nil if there was no answer
---@field headers? table<string, string> names in lower case
---@field body? any the value if it is JSON, else the text
---@field base64? string instead of body, if that is no UTF-8 text
---@field truncated? boolean there was more than 64 KiB
---@field error? string why the call failed for good
---@field url string what was called, without its query
---@field event string the id of the event that the call was made for

---Permission: http. Limits: effects, effect_bytes. An error if the URL is none.
---@param url string
---@param options? perigee.HTTPOptions
function http.get(url, options) end

---As http.get. Permission: http.
---@param url string
---@param options? perigee.HTTPOptions
function http.delete(url, options) end

---As http.get, with a body: a string as it is, anything else as JSON. Permission: http.
---@param url string
---@param body perigee.JSON
---@param options? perigee.HTTPOptions
function http.post(url, body, options) end

---As http.post. Permission: http.
---@param url string
---@param body perigee.JSON
---@param options? perigee.HTTPOptions
function http.put(url, body, options) end

---As http.post. Permission: http.
---@param url string
---@param body perigee.JSON
---@param options? perigee.HTTPOptions
function http.patch(url, body, options) end

---As http.post, with any method. Permission: http.
---@param method "GET"|"HEAD"|"POST"|"PUT"|"PATCH"|"DELETE"|"OPTIONS"
---@param url string
---@param body perigee.JSON
---@param options? perigee.HTTPOptions
function http.request(method, url, body, options) end

---What sensors need again and again. What it keeps is in the state of the key. A value of nil changes nothing.
---@class perigee.signal
signal = {}

---@class perigee.AlarmOptions
---@field on number turns on when the value is at least this
---@field off? number turns off when it is at most this; on if absent. Above on: an alarm of low values
---@field hold? perigee.Duration only once that was so for this long

---Tells whether something is wrong, without flutter.
---@param name string
---@param value? number
---@param options perigee.AlarmOptions
---@return boolean on
---@return boolean turned just now
function signal.alarm(name, value, options) end

---@class perigee.ChangedOptions
---@field by? number a number must differ by at least this
---@field heartbeat? perigee.Duration true after this long in any case

---Tells whether a value is worth passing on: it differs from the last that was.
---@param name string
---@param value any
---@param options? perigee.ChangedOptions
---@return boolean changed
---@return any last
function signal.changed(name, value, options) end

---@class perigee.RateOptions
---@field per? perigee.Duration 1 s if absent
---@field wrap? number where the counter starts again

---How fast a counter rises; nil at the first reading.
---@param name string
---@param value? number
---@param options? perigee.RateOptions
---@return number? rate
---@return number? delta by how much it rose
function signal.rate(name, value, options) end

---@class perigee.Window
---@field n integer
---@field sum number
---@field mean? number
---@field min? number
---@field max? number
---@field first? number
---@field last? number

---Statistics of the values of the last span.
---@param name string
---@param value? number
---@param span perigee.Duration
---@return perigee.Window
function signal.window(name, value, span) end

---@class perigee.json
---@field null userdata in a table: null, where nil would leave the field out
json = {}

---Returns the value, or nil and what is wrong at which byte.
---@param text string
---@return any value
---@return string? problem
function json.decode(text) end

---Returns the text. An error that names the place if JSON cannot hold the value. Limit: 64 levels.
---@param value perigee.JSON
---@return string
function json.encode(value) end

---Marks a table as an array, so that it is [] even when it is empty.
---@param table? table a new one if absent
---@return table
function json.array(table) end

---Returns a whole number of up to 64 bits, with all its digits: a number, or an integer if no Lua number can hold it; nil and why if it is none.
---@param digits string|number|perigee.Integer
---@return number|perigee.Integer|nil
---@return string? problem
function json.integer(digits) end

---Binary payloads. Formats as in Lua 5.3: < > b B h H i3 I3 l L f d s1 z c12 x.
---@class perigee.bytes
bytes = {}

---Returns the values as bytes. An error if one does not fit.
---@param format string
---@param ... number|string|perigee.Integer
---@return string
function bytes.pack(format, ...) end

---Returns the values, and the place after the last. An error if there are too few bytes. Limit: 8000 values.
---@param format string
---@param bytes string
---@param from? integer 1 if absent
---@return any ...
function bytes.unpack(format, bytes, from) end

---Returns how many bytes a format takes. An error for s and z.
---@param format string
---@return integer
function bytes.size(format) end

---@param bytes string
---@return string
function bytes.hex(bytes) end

---Returns the bytes; nil and a message if the text is not hexadecimal.
---@param text string
---@return string? bytes
---@return string? problem
function bytes.unhex(text) end

---@class perigee.base64
base64 = {}

---@param bytes string
---@return string
function base64.encode(bytes) end

---Returns the bytes, of either alphabet, with padding or without; nil and a message if it is neither.
---@param text string
---@return string? bytes
---@return string? problem
function base64.decode(text) end

---@class perigee.hash
hash = {}

---@param bytes string
---@return string hexadecimal
function hash.sha256(bytes) end

---For checks, not for secrecy.
---@param bytes string
---@return string hexadecimal
function hash.sha1(bytes) end

---For checks, not for secrecy.
---@param bytes string
---@return string hexadecimal
function hash.md5(bytes) end

---The CRC of Ethernet and zip.
---@param bytes string
---@return integer
function hash.crc32(bytes) end

---The CRC of Modbus.
---@param bytes string
---@return integer
function hash.crc16(bytes) end

---@param key string
---@param bytes string
---@return string hexadecimal
function hash.hmac_sha256(key, bytes) end

-- The rest of Lua 5.1, as far as functions have it.

---@type table<string, any>
_G = {}

---@type string
_VERSION = "Lua 5.1"

---@generic T
---@param value? T
---@param message? any
---@return T
function assert(value, message) end

---@param message any
---@param level? integer
function error(message, level) end

---@param value any
---@return any
function getmetatable(value) end

---@generic T: table, V
---@param table T
---@return fun(table: V[], i?: integer): integer, V
---@return T
---@return integer i
function ipairs(table) end

---@generic K, V
---@param table table<K, V>
---@param key? K
---@return K?
---@return V?
function next(table, key) end

---In the order in which the names were set.
---@generic T: table, K, V
---@param table T
---@return fun(table: table<K, V>, key?: K): K, V
---@return T
function pairs(table) end

---Does not catch denied, bad-output, memory, timeout and retry.
---@param f function
---@param ... any
---@return boolean ok
---@return any ...
function pcall(f, ...) end

---Logs.
---@param ... any
function print(...) end

---@param a any
---@param b any
---@return boolean
function rawequal(a, b) end

---@param table table
---@param key any
---@return any
function rawget(table, key) end

---@param table table
---@param key any
---@param value any
---@return table
function rawset(table, key, value) end

---Loads a file of the bundle's lib/: require "util" for lib/util.lua.
---@param name string
---@return any
function require(name) end

---@param n integer|"#"
---@param ... any
---@return any ...
function select(n, ...) end

---@param table table
---@param metatable? table
---@return table
function setmetatable(table, metatable) end

---@param value any
---@param base? integer
---@return number?
function tonumber(value, base) end

---@param value any
---@return string
function tostring(value) end

---@param value any
---@return "nil"|"number"|"string"|"boolean"|"table"|"function"|"thread"|"userdata"
function type(value) end

---Limit: 8000 values.
---@param table table
---@param from? integer
---@param to? integer
---@return any ...
function unpack(table, from, to) end

---As pcall.
---@param f function
---@param handler function
---@return boolean ok
---@return any ...
function xpcall(f, handler) end

---Strings are bytes. A string larger than the memory limit is a memory fault.
---@class stringlib
string = {}

---Limit: 8000 values.
---@param s string|number
---@param from? integer
---@param to? integer
---@return integer ...
function string.byte(s, from, to) end

---@param ... integer
---@return string
function string.char(...) end

---@param s string|number
---@param pattern string|number
---@param from? integer
---@param plain? boolean
---@return integer? from
---@return integer? to
---@return any ... captures
function string.find(s, pattern, from, plain) end

---Width and precision up to 99; %s takes any value.
---@param format string|number
---@param ... any
---@return string
function string.format(format, ...) end

---@param s string|number
---@param pattern string|number
---@return fun(): string, ...
function string.gfind(s, pattern) end

---@param s string|number
---@param pattern string|number
---@return fun(): string, ...
function string.gmatch(s, pattern) end

---@param s string|number
---@param pattern string|number
---@param replacement string|number|table|function
---@param n? integer
---@return string
---@return integer count
function string.gsub(s, pattern, replacement, n) end

---@param s string|number
---@return integer
function string.len(s) end

---@param s string|number
---@return string
function string.lower(s) end

---@param s string|number
---@param pattern string|number
---@param from? integer
---@return any ...
function string.match(s, pattern, from) end

---@param s string|number
---@param n integer
---@return string
function string.rep(s, n) end

---@param s string|number
---@return string
function string.reverse(s) end

---@param s string|number
---@param from integer
---@param to? integer
---@return string
function string.sub(s, from, to) end

---@param s string|number
---@return string
function string.upper(s) end

---@class tablelib
table = {}

---@param table table
---@param separator? string
---@param from? integer
---@param to? integer
---@return string
function table.concat(table, separator, from, to) end

---@param table table
---@param f fun(key: any, value: any): any
---@return any
function table.foreach(table, f) end

---@param table table
---@param f fun(i: integer, value: any): any
---@return any
function table.foreachi(table, f) end

---@param table table
---@return integer
function table.getn(table) end

---@param table table
---@param position integer the place, or the value to append
---@param value? any
---@overload fun(table: table, value: any)
function table.insert(table, position, value) end

---@param table table
---@return number
function table.maxn(table) end

---@param table table
---@param position? integer
---@return any
function table.remove(table, position) end

---@param table table
---@param less? fun(a: any, b: any): boolean
function table.sort(table, less) end

---@param table table
---@param from? integer
---@param to? integer
---@return any ...
function table.unpack(table, from, to) end

---Random numbers belong to the event: another attempt at it gets the same.
---@class mathlib
---@field huge number
---@field pi number
math = {}

---@param x number
---@return number
function math.abs(x) end

---@param x number
---@return number
function math.acos(x) end

---@param x number
---@return number
function math.asin(x) end

---@param x number
---@return number
function math.atan(x) end

---@param y number
---@param x number
---@return number
function math.atan2(y, x) end

---@param x number
---@return number
function math.ceil(x) end

---@param x number
---@return number
function math.cos(x) end

---@param x number
---@return number
function math.cosh(x) end

---@param x number
---@return number
function math.deg(x) end

---@param x number
---@return number
function math.exp(x) end

---@param x number
---@return number
function math.floor(x) end

---@param x number
---@param y number
---@return number
function math.fmod(x, y) end

---@param x number
---@return number m
---@return integer e
function math.frexp(x) end

---@param m number
---@param e number
---@return number
function math.ldexp(m, e) end

---@param x number
---@param base? number
---@return number
function math.log(x, base) end

---@param x number
---@return number
function math.log10(x) end

---@param x number
---@param ... number
---@return number
function math.max(x, ...) end

---@param x number
---@param ... number
---@return number
function math.min(x, ...) end

---@param x number
---@param y number
---@return number
function math.mod(x, y) end

---@param x number
---@return number whole
---@return number fraction
function math.modf(x) end

---@param x number
---@param y number
---@return number
function math.pow(x, y) end

---@param x number
---@return number
function math.rad(x) end

---A fraction without arguments; a whole number from 1 to `from` with one, between the two with two.
---@param from? number
---@param to? number
---@return number
function math.random(from, to) end

---For this invocation.
---@param x number
function math.randomseed(x) end

---@param x number
---@return number
function math.sin(x) end

---@param x number
---@return number
function math.sinh(x) end

---@param x number
---@return number
function math.sqrt(x) end

---@param x number
---@return number
function math.tan(x) end

---@param x number
---@return number
function math.tanh(x) end

---Limits: 1000 in an invocation, which wait for each other at most 100 deep. They cannot yield out of pcall, a metamethod, table.sort or string.gsub.
---@class coroutinelib
coroutine = {}

---@param f function
---@return thread
function coroutine.create(f) end

---@param coroutine thread
---@param ... any
---@return boolean ok
---@return any ...
function coroutine.resume(coroutine, ...) end

---@return thread?
function coroutine.running() end

---@param coroutine thread
---@return "running"|"suspended"|"normal"|"dead"
function coroutine.status(coroutine) end

---@param f function
---@return fun(...): ...
function coroutine.wrap(f) end

---@param ... any
---@return any ...
function coroutine.yield(...) end

---All times are UTC.
---@class oslib
os = {}

---Seconds since the invocation began.
---@return number
function os.clock() end

---@param format? string
---@param time? number
---@return string|table
function os.date(format, time) end

---@param later number
---@param earlier? number
---@return number
function os.difftime(later, earlier) end

---Without a table: ctx.now in whole seconds.
---@param table? table
---@return integer
function os.time(table) end

---As in Lua 5.2: 32 bits, others taken modulo 2^32.
---@class bit32lib
bit32 = {}

---@param x number
---@param n number
---@return integer
function bit32.arshift(x, n) end

---@param ... number
---@return integer
function bit32.band(...) end

---@param x number
---@return integer
function bit32.bnot(x) end

---@param ... number
---@return integer
function bit32.bor(...) end

---@param ... number
---@return boolean
function bit32.btest(...) end

---@param ... number
---@return integer
function bit32.bxor(...) end

---@param x number
---@param field number
---@param width? number
---@return integer
function bit32.extract(x, field, width) end

---@param x number
---@param n number
---@return integer
function bit32.lrotate(x, n) end

---@param x number
---@param n number
---@return integer
function bit32.lshift(x, n) end

---@param x number
---@param value number
---@param field number
---@param width? number
---@return integer
function bit32.replace(x, value, field, width) end

---@param x number
---@param n number
---@return integer
function bit32.rrotate(x, n) end

---@param x number
---@param n number
---@return integer
function bit32.rshift(x, n) end

---As in Lua 5.3.
---@class utf8lib
---@field charpattern string
utf8 = {}

---@param ... integer
---@return string
function utf8.char(...) end

---Limit: 8000 values.
---@param s string
---@param from? integer
---@param to? integer
---@return integer ...
function utf8.codepoint(s, from, to) end

---@param s string
---@return fun(): integer, integer
function utf8.codes(s) end

---@param s string
---@param from? integer
---@param to? integer
---@return integer? n
---@return integer? bad the first byte that is no UTF-8
function utf8.len(s, from, to) end

---@param s string
---@param n integer
---@param from? integer
---@return integer?
function utf8.offset(s, n, from) end
