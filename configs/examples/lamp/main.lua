-- State is what the function remembers from one event to the next. Nothing else carries over.
return function(event)
  if event.data.action ~= "single" then
    return
  end
  local on = not state.get("on", false)
  state.set("on", on)
  device.write("lamp", on)
  return {on = on, presses = state.incr("presses")}
end
