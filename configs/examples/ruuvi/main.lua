-- {"gw_mac":"C8:25:2D:8E:9C:2C","rssi":-71,"gwts":"1643888166","ts":"1643888165","data":"0201061BFF990405…","coords":""}
-- data is the whole Bluetooth advertisement in hexadecimal. Behind 0xFF, "manufacturer's data", stand Ruuvi's number 0x0499, lowest
-- byte first, and data format 5 (RAWv2): big-endian numbers, and one value of each that means "not available".

local function bytes_of(hex)
  return (hex:gsub("%x%x", function(b) return string.char(tonumber(b, 16)) end))
end

local function u16(s, at)
  local high, low = s:byte(at, at + 1)
  return high * 256 + low
end

local function i16(s, at)
  local v = u16(s, at)
  return v < 0x8000 and v or v - 0x10000
end

local function round(v, digits)
  local f = 10 ^ digits
  return math.floor(v * f + 0.5) / f
end

-- decode returns a reading, or nil and what is wrong.
local function decode(hex)
  local adv = bytes_of(hex)
  local at = adv:find("\255\153\4\5", 1, true)
  if not at then
    return nil, "no data of format 5"
  end
  local d = adv:sub(at + 3) -- d:byte(1) is the format
  if #d < 24 then
    return nil, "cut short"
  end
  local r = {sequence = u16(d, 17), movement = d:byte(16)}
  if u16(d, 2) ~= 0x8000 then r.temperature = round(i16(d, 2) * 0.005, 2) end     -- °C
  if u16(d, 4) ~= 0xFFFF then r.humidity = round(u16(d, 4) * 0.0025, 2) end       -- %
  if u16(d, 6) ~= 0xFFFF then r.pressure = round((u16(d, 6) + 50000) / 100, 2) end -- hPa
  local power = u16(d, 14)
  if bit32.rshift(power, 5) ~= 2047 then
    r.voltage = bit32.rshift(power, 5) + 1600 -- mV
  end
  return r
end

return function(event, ctx)
  local r, wrong = decode(event.data.data)
  if not r then
    log.warn("a tag that is not understood: " .. wrong)
    return
  end

  -- A tag broadcasts every second and more than one gateway may hear it: the sequence tells what is new.
  if state.get("sequence") == r.sequence then
    return
  end
  state.set("sequence", r.sequence)

  r.rssi = event.data.rssi
  publish("tags/" .. event.params.tag, r)
  if signal.changed("told", r.temperature, {by = 0.3, heartbeat = ctx.env.heartbeat}) then
    stream.append("tags", {tag = event.params.tag, temperature = r.temperature, humidity = r.humidity, pressure = r.pressure})
  end
  return r
end
