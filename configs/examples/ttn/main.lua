-- The Things Stack v3 sends a lot around what the device said:
--   {"end_device_ids":{"device_id":"soil-1",…},"received_at":"…","uplink_message":{"f_port":2,"f_cnt":17,
--    "decoded_payload":{"moisture":33,"temperature":21.5},"rx_metadata":[{"rssi":-35,"snr":5}],…}}
-- decoded_payload is there if the device has a payload formatter; else there is only frm_payload, in base64.
return function(event, ctx)
  local up = event.data.uplink_message
  local device = event.params.device

  -- Frames are numbered. A hole is a frame that nobody heard; a lower number is a device that has joined anew.
  local missed = 0
  local last, now = state.get("f_cnt"), up.f_cnt or 0 -- 0 is left out on the way
  if last and now > last then
    missed = now - last - 1
  end
  state.set("f_cnt", now)

  local values = up.decoded_payload
  if not values then
    log.warn("no decoded_payload from " .. device .. ": give it a payload formatter", up.frm_payload)
    return
  end

  local best
  for _, m in ipairs(up.rx_metadata or {}) do
    if m.rssi and (not best or m.rssi > best) then best = m.rssi end
  end

  local dry, turned = signal.alarm("dry", values.moisture, {on = ctx.env.dry, off = ctx.env.wet})
  if turned then
    publish("fields/" .. device .. "/dry", dry, {retain = true})
  end
  stream.append("soil", {device = device, moisture = values.moisture, temperature = values.temperature, dry = dry, missed = missed, rssi = best})
  return {dry = dry, missed = missed}
end
