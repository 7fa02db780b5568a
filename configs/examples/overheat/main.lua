-- Save this file while "perigee demo" runs: it takes effect at once.
return function(event, ctx)
  local t = event.data.temperature

  -- On from 30 °C, off below 27 °C, and only if it stays so for two seconds: a fan must not flutter.
  local hot, turned = signal.alarm("hot", t, {on = ctx.env.on, off = ctx.env.off, hold = ctx.env.hold})

  if turned then
    device.write("fan", hot)
    publish("alerts/overheat", {room = "cellar", hot = hot, temperature = t})
    stream.append("alerts", {room = "cellar", hot = hot, temperature = t})
  end
  return {hot = hot}
end
