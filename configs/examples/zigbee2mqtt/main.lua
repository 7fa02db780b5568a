-- {"battery":12,"humidity":47.2,"linkquality":120,"temperature":22.3,"voltage":2800}
return function(event, ctx)
  -- The key keeps the device's name; a timer has no topic, so look there.
  local name = event.key

  if event.timer == "silent" then
    publish("alerts/silent", {device = name})
    stream.append("alerts", {device = name, silent = true})
    return
  end

  -- It has spoken: the wait begins anew.
  timer.set("silent", ctx.env.silent)

  -- off above on makes it an alarm of low values; a new battery ends it.
  local low, turned = signal.alarm("low", event.data.battery, {on = ctx.env.low, off = ctx.env.fine})
  if turned then
    publish("alerts/battery", {device = name, low = low, battery = event.data.battery})
    stream.append("alerts", {device = name, low = low, battery = event.data.battery})
  end
  return {low = low}
end
