-- A sensor says the same thing again and again. This passes on what is new, with the mean of the last minutes.
return function(event, ctx)
  local room, t = event.params.room, event.data.temperature
  local recent = signal.window("recent", t, ctx.env.span)
  local mean = math.floor(recent.mean * 10 + 0.5) / 10

  -- New is what differs by half a degree from the last that was passed on, and in any case one reading every five minutes.
  if signal.changed("told", t, {by = ctx.env.by, heartbeat = "5m"}) then
    local told = {room = room, temperature = t, mean = mean, min = recent.min, max = recent.max}
    publish("climate/" .. room, told, {retain = true})
    stream.append("climate", told)
  end
  return {mean = mean}
end
