-- {"Time":"2026-03-01T10:11:12","ENERGY":{"Total":12.371,"Today":0.122,"Power":41,"Voltage":229,"Current":0.293,…}}
return function(event, ctx)
  local plug = event.key

  -- A timer brings the event that began the wait once more: its data are there then, too.
  local e = event.data.ENERGY

  local running, turned = signal.alarm("running", e.Power, {on = ctx.env.running, off = ctx.env.idle, hold = ctx.env.hold})
  if turned and running then
    state.set("from", e.Total)
  elseif turned then
    -- Total is what the plug has counted, in kWh, with three digits.
    local used = math.floor((e.Total - state.get("from", e.Total)) * 1000 + 0.5) / 1000
    publish("home/" .. plug .. "/finished", {energy = used})
    stream.append("energy", {plug = plug, energy = used})
  end
  return {running = running, power = e.Power}
end
