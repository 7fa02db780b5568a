-- signal: what sensors need again and again, written over state and timer. Each value that it keeps is in the state of the
-- key, under "signal.KIND.NAME". `signal_again` says that the event is a timer of signal.alarm, which
-- shows an earlier event once more: nothing is counted twice then.
local signal = {}

local function options(opts, level, names)
  if opts == nil then return {} end
  if type(opts) ~= "table" then error("options are a table, like {on = 30}", level + 1) end
  for k in pairs(opts) do
    if not names[k] then error("no option is called '" .. tostring(k) .. "'", level + 1) end
  end
  return opts
end

local function number(v, what, level)
  local n = tonumber(v)
  if not n or n ~= n then error(what .. " must be a number, got " .. type(v), level + 1) end
  return n
end

-- alarm tells whether something is wrong, without flutter: it turns on at `on` and off at `off`, each only once that held for `hold`.
-- If off is above on, it is an alarm of low values. Returns whether it is on, and whether it turned just now.
function signal.alarm(name, value, opts)
  opts = options(opts, 2, {on = true, off = true, hold = true})
  local on = number(opts.on, "signal.alarm: on", 2)
  local off = opts.off == nil and on or number(opts.off, "signal.alarm: off", 2)
  local hold = opts.hold and signal_seconds(opts.hold, "signal.alarm: hold") or 0
  local id = "signal.alarm." .. name
  local s = state.get(id)
  local active = s ~= nil and s.on == true
  if value == nil then return active, false end
  value = number(value, "signal.alarm: the value", 2)

  local low = off > on
  local want = active
  if active then
    if low then want = value < off else want = value > off end
    if on == off then if low then want = value <= on else want = value >= on end end
  else
    if low then want = value <= on else want = value >= on end
  end

  if want == active then
    if s and s.waits then
      timer.cancel(id)
      state.set(id, {on = active})
    end
    return active, false
  end
  if hold > 0 and signal_timer ~= id then
    if not (s and s.waits) then timer.set(id, hold) end
    state.set(id, {on = active, waits = true, event = signal_event()})
    return active, false
  end
  state.set(id, {on = want})
  return want, true
end

-- changed tells whether a value is worth passing on: it differs by at least `by` from the last one that was, or `heartbeat` has
-- passed since. Returns that, and the last one.
function signal.changed(name, value, opts)
  opts = options(opts, 2, {by = true, heartbeat = true})
  local by = opts.by and number(opts.by, "signal.changed: by", 2)
  local heartbeat = opts.heartbeat and signal_seconds(opts.heartbeat, "signal.changed: heartbeat")
  local id = "signal.changed." .. name
  local s = state.get(id)
  local last = s and s.value
  if value == nil or signal_again then return false, last end
  local now = os_now()
  local differs
  if s == nil then
    differs = true
  elseif by and type(value) == "number" and type(last) == "number" then
    differs = math.abs(value - last) >= by
  else
    differs = value ~= last
  end
  if not differs and heartbeat and (now - s.time >= heartbeat or now < s.time) then differs = true end
  if differs then state.set(id, {value = value, time = now}) end
  return differs, last
end

-- rate turns a counter into a speed: how much it rose for each `per` since the last reading. A counter that falls has started again
-- at 0, or at `wrap` if that is given. Returns the rate and by how much it rose; nil at the first reading.
function signal.rate(name, value, opts)
  opts = options(opts, 2, {per = true, wrap = true})
  local per = opts.per and signal_seconds(opts.per, "signal.rate: per") or 1
  local wrap = opts.wrap and number(opts.wrap, "signal.rate: wrap", 2)
  local id = "signal.rate." .. name
  local s = state.get(id)
  if value == nil then return nil end
  value = number(value, "signal.rate: the value", 2)
  if signal_again then
    if s and s.rate then return s.rate, s.delta end
    return nil
  end
  local now = os_now()
  if s == nil or now < s.time then
    state.set(id, {value = value, time = now})
    return nil
  end
  if now == s.time then return s.rate, s.delta end
  local delta = value - s.value
  if delta < 0 then delta = wrap and delta + wrap or value end
  local rate = delta / (now - s.time) * per
  state.set(id, {value = value, time = now, rate = rate, delta = delta})
  return rate, delta
end

local slots = 60

-- window keeps statistics of the values of the last `span`, in 60 slots, so that any number of readings take the same space: what
-- leaves the window does so by the slot. Returns a table with n, min, max, mean, sum, first, last.
function signal.window(name, value, span)
  if type(span) == "table" then span = options(span, 2, {span = true}).span end
  span = signal_seconds(span, "signal.window: the span")
  if span <= 0 then error("signal.window: the span must be longer than 0", 2) end
  local id = "signal.window." .. name
  local kept = state.get(id, {})
  local now = os_now()
  local slot = math.floor(now / (span / slots))
  local list = {}
  for _, b in ipairs(kept) do
    if b.slot > slot - slots and b.slot <= slot then list[#list + 1] = b end
  end
  if value ~= nil and not signal_again then
    value = number(value, "signal.window: the value", 2)
    local b = list[#list]
    if not b or b.slot ~= slot then
      b = {slot = slot, n = 0, sum = 0, min = value, max = value, first = value}
      list[#list + 1] = b
    end
    b.n, b.sum, b.last = b.n + 1, b.sum + value, value
    b.min, b.max = math.min(b.min, value), math.max(b.max, value)
    state.set(id, list)
  end
  local r = {n = 0, sum = 0}
  for _, b in ipairs(list) do
    r.n, r.sum = r.n + b.n, r.sum + b.sum
    r.min = r.min and math.min(r.min, b.min) or b.min
    r.max = r.max and math.max(r.max, b.max) or b.max
    if r.first == nil then r.first = b.first end
    r.last = b.last
  end
  if r.n > 0 then r.mean = r.sum / r.n end
  return r
end

return signal
