-- One message in; a state change, a record for the cloud and a message out: all of it, or nothing.
return function(event)
  local run, n = event.data.run, event.data.n
  local count = state.incr("count")
  stream.append("proof", {run = run, n = n, count = count})
  publish("demo/proof/out", {run = run, n = n, count = count}, {qos = 1, id = true})
end
