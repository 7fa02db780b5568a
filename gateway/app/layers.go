package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/perigee-iot/perigee/functions/frame"
	"github.com/perigee-iot/perigee/functions/sandbox"
	"github.com/perigee-iot/perigee/gateway/api"
	"github.com/perigee-iot/perigee/gateway/config"
)

// workerTime is how long Layers waits for a worker.
const workerTime = 20 * time.Second

// Layers starts a worker as a gateway of this configuration would, by this user, and says how it is confined.
func Layers(ctx context.Context, cfg *config.Config) ([]api.Layer, error) {
	pool, err := sandbox.New(sandbox.Options{Max: 1, Warm: 1, Memory: int64(cfg.Workers.Memory), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	layers, err := pool.Layers(ctx, workerTime)
	return layersOf(layers), err
}

// layersOf is the API's form of layers.
func layersOf(layers []frame.Layer) []api.Layer {
	var out []api.Layer
	for _, l := range layers {
		out = append(out, api.Layer{Name: l.Name, State: l.State.String(), Why: l.Why})
	}
	return out
}
