-- {device}/status/switch:0 has the whole state:
--   {"id":0,"source":"init","output":true,"apower":60.5,"voltage":231.3,"aenergy":{"total":11.679},"temperature":{"tC":43.1}}
-- {device}/events/rpc has changes, each with only what changed, and events of inputs:
--   {"src":"shellyplus1pm-…","method":"NotifyStatus","params":{"ts":1712000003.2,"switch:0":{"id":0,"apower":61.2}}}
--   {"src":"shellyplusi4-…","method":"NotifyEvent","params":{"events":[{"component":"input:0","event":"single_push"}]}}

-- Names and units as Zigbee2MQTT has them, so that other functions need not know who measured.
local function reading(s)
  local r = {}
  if s.output ~= nil then r.state = s.output and "ON" or "OFF" end
  r.power = s.apower -- W
  r.voltage = s.voltage
  if s.aenergy then r.energy = s.aenergy.total / 1000 end -- Wh to kWh
  if s.temperature then r.device_temperature = s.temperature.tC end
  return r
end

local actions = {single_push = "single", double_push = "double", triple_push = "triple", long_push = "hold"}

return function(event)
  local name, d = event.params.device, event.data
  local status = d.method == nil and d or d.method == "NotifyStatus" and d.params["switch:0"]
  if status then
    local r = reading(status)
    if next(r) then
      publish("home/" .. name, r)
    end
    return r
  end

  if d.method == "NotifyEvent" then
    for _, e in ipairs(d.params.events or {}) do
      local action = actions[e.event]
      if action then
        publish("home/" .. name .. "/action", {action = action, input = e.component})
      end
    end
  end
end
