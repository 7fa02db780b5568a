-- What can go wrong with the machine, and from where on it is worth telling.
local watched = {
  {field = "memory_used", limit = "memory"},
  {field = "disk_used", limit = "disk"},
  {field = "cpu_temperature", limit = "temperature"}, -- not every machine has it: a value of nil changes nothing
}

return function(event, ctx)
  local bad = {}
  for _, w in ipairs(watched) do
    local on, off = ctx.env[w.limit], ctx.env[w.limit] - 2
    local high, turned = signal.alarm(w.field, event.data[w.field], {on = on, off = off})
    if turned then
      stream.append("alerts", {machine = ctx.gateway, field = w.field, high = high, value = event.data[w.field]})
    end
    if high then
      bad[#bad + 1] = w.field
    end
  end

  -- Pass the load on when it has changed by a quarter, and in any case every minute.
  if signal.changed("load", event.data.load, {by = 0.25, heartbeat = "1m"}) then
    publish("box/load", event.data.load)
  end
  return {load = event.data.load, high = json.array(bad)}
end
