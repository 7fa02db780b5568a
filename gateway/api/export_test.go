package api

import "reflect"

// GatewayMethods lists the methods of Gateway.
func GatewayMethods() []string {
	t := reflect.TypeFor[Gateway]()
	var names []string
	for i := range t.NumMethod() {
		names = append(names, t.Method(i).Name)
	}
	return names
}

// Routes maps the Gateway's methods to their patterns.
func Routes(s *Server) map[string]string {
	m := map[string]string{}
	for _, r := range s.routes() {
		m[r.method] = r.pattern
	}
	return m
}

const (
	MaxBody     = maxBody
	MaxRequests = maxRequests
)
