package authflow

import (
	"context"
	"net/http"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Link is a connect link: whoever opens it may connect exactly one Slot, once.
type Link struct {
	URL       string
	ExpiresAt time.Time
}

// ConnectLink makes a connect link for the slot, spent by a successful connect. life: default 24 h.
func (b *Broker) ConnectLink(ctx context.Context, slot tokenstore.Slot, by string, life time.Duration) (Link, error) {
	panic("skeleton")
}

// Handler serves /oauth/connect/{integration} and /oauth/callback/{integration}.
func (b *Broker) Handler() http.Handler { panic("skeleton") }
