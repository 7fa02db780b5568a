//go:build !linux

package api

import "net"

// describePeer names the process at the other end of a Unix connection, where the system tells.
func describePeer(net.Conn) string { return "" }
