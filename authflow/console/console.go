// Package console is the Integrations screen and the JSON API over a Broker.
package console

import (
	"log/slog"
	"net/http"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Config is what the screen and the API need.
type Config struct {
	Broker    *authflow.Broker
	Sessions  tokenstore.Shelf // where sign-ins are kept
	PublicURL string           // the auth listener as browsers see it, without a trailing slash
	Operators []Operator       // empty: open mode, behind the Host and Sec-Fetch-Site gate
	Log       *slog.Logger
}

// Operator may use the screen and the API.
type Operator struct {
	Name  string
	Token func() string
}

// New returns the handler of /integrations and /api/v1/.
func New(cfg Config) (http.Handler, error) { panic("skeleton") }
