package tokenstore

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

// Redis is the shared store: a single server, Sentinel or Cluster. It implements Backend.
type Redis struct{ Backend }

var _ Backend = (*Redis)(nil)

// RedisConfig says where a Redis is and how it is sealed.
type RedisConfig struct {
	URL     string // redis:// or rediss://; see NewRedis
	Keys    *Keyring
	Metrics prometheus.Registerer
}

// NewRedis connects.
func NewRedis(ctx context.Context, cfg RedisConfig) (*Redis, error) { panic("skeleton") }

// Close closes the connections.
func (r *Redis) Close() error { panic("skeleton") }
