package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// The codes of an Error. Programs decide by the code, people read the message.
const (
	CodeNotFound    = "not-found"   // what was named does not exist
	CodeBadRequest  = "bad-request" // the request itself is wrong; the same one fails again
	CodeConflict    = "conflict"    // it would be right at another time, or with --take
	CodeUnavailable = "unavailable" // the gateway cannot do it now: stopping, disk full, device not connected
	CodeInternal    = "internal"    // the gateway's own fault; its log says more
	CodeNoGateway   = "no-gateway"  // made by the Client alone: nobody answers at the socket
)

// statusOf maps a code to the HTTP status that carries it.
func statusOf(code string) int {
	switch code {
	case CodeNotFound:
		return http.StatusNotFound
	case CodeBadRequest:
		return http.StatusBadRequest
	case CodeConflict:
		return http.StatusConflict
	case CodeUnavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// Errorf makes an *Error without a hint.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithHint returns the error with what to do about it.
func (e *Error) WithHint(format string, args ...any) *Error {
	return &Error{Code: e.Code, Message: e.Message, Hint: fmt.Sprintf(format, args...)}
}

// IsCode says whether err is an *Error with that code, or wraps one.
func IsCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// asError makes what a Gateway returned fit for the wire. What an *Error is wrapped in becomes part of its message.
func asError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		if top, ok := err.(*Error); ok { //nolint:errorlint // only the outermost error is the message as it stands
			return top
		}
		return &Error{Code: e.Code, Message: strings.TrimSuffix(err.Error(), "\nhint: "+e.Hint), Hint: e.Hint}
	case errors.Is(err, context.DeadlineExceeded):
		return Errorf(CodeUnavailable, "it took longer than %s: %s", requestTimeout, err)
	case errors.Is(err, context.Canceled):
		return Errorf(CodeUnavailable, "the gateway is stopping")
	default:
		return Errorf(CodeInternal, "%s", err)
	}
}
