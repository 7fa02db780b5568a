package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// backup answers with a file of any length. Like a list that is followed, it has no time limit of its own, but for each part of it, and
// ends when the client goes or the server stops.
func (s *Server) backup(w http.ResponseWriter, r *http.Request) error {
	_, cancel, err := begin(w, r, nil)
	if err != nil {
		return err
	}
	cancel()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if stop, ok := ctx.Value(stopKey{}).(context.Context); ok {
		defer context.AfterFunc(stop, cancel)()
	}
	out := &file{w: w, control: http.NewResponseController(w)}
	if err := s.gw.Backup(ctx, out); err != nil {
		return err
	}
	out.begin()
	return nil
}

// file writes an answer that is no JSON. The header goes out with the first bytes, so that an error before them is an ordinary answer.
type file struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

func (f *file) begin() {
	if !f.begun {
		f.begun = true
		f.w.Header().Set("Content-Type", "application/octet-stream")
		f.w.Header().Set("Trailer", errorTrailer)
		f.w.WriteHeader(http.StatusOK)
	}
}

func (f *file) Write(p []byte) (int, error) {
	f.begin()
	_ = f.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	return f.w.Write(p)
}

// Backup writes a backup of the gateway's store to w. An error of w ends it.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.request(ctx, http.MethodGet, path("backup"), nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	out := &noted{w: w}
	if _, err := io.Copy(out, resp.Body); err != nil {
		if out.err != nil {
			return out.err
		}
		return c.explain(ctx, err)
	}
	return trailer(resp)
}

// noted tells errors of writing from those of reading.
type noted struct {
	w   io.Writer
	err error
}

func (n *noted) Write(p []byte) (int, error) {
	k, err := n.w.Write(p)
	n.err = errors.Join(n.err, err)
	return k, err
}
