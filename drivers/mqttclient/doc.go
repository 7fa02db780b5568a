// Package mqttclient makes an external MQTT broker the gateway's local broker: events come from it, publishes go to it.
//
// # Connections
//
// There are at least two connections, because a message that the gateway has no room for stops the reading of its
// connection, and an acknowledgement of a publish must never wait behind it. Those for events have persistent
// sessions with stable names, so that the broker keeps what comes while the gateway is away; the one for publishes has none, since
// what was not acknowledged is sent again from the gateway's own journal.
//
// [Client.Run] is one life of all connections: when one ends, all do, and the caller runs it again after a back-off. There is a fresh
// paho client for every connection and paho reconnects nothing by itself: only so is it known whether the broker still had the
// session, and which connection a publish was acknowledged on.
//
// # Acknowledgements and marks
//
// A message of QoS 1 or 2 is acknowledged when the engine says so, which is after its outcome is durable. A broker that did
// not see the acknowledgement sends the message again, with DUP set; the engine knows it by its mark. A mark may be dropped only
// when the broker has certainly read the acknowledgement. Two seconds after acknowledgements have been written, a session
// therefore unsubscribes a filter that it never subscribed: a broker reads a connection in order, so that its answer
// proves it. A session that the broker has lost loses its marks, too, since the broker counts its packet ids anew.
//
// A mark is a session and a packet id, so that it means something only as long as the broker does not use the id anew.
// Brokers count the ids up and begin again at 65535; one that is seen to do otherwise gets no benefit of marks.
//
// QoS 2 is the same with PUBREC in the place of PUBACK: a broker that has read a PUBREC sends PUBREL and never the
// message again. paho answers a PUBREL by itself, at any time.
//
// # Subscriptions
//
// No session has two filters that overlap, since brokers differ in how many copies of a message they send then; see
// plan.go. What the sessions subscribe is remembered in a file, so that a start after a change of functions gives up
// what is no longer wanted. Messages that the broker had kept for such a filter still come once; they match no function.
package mqttclient
