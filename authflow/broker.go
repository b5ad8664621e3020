package authflow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Broker owns every connection of every integration. All methods may be called concurrently.
type Broker struct {
	cfg      Config
	store    tokenstore.Backend
	endpoint *tokenEndpoint
	log      *slog.Logger
	metrics  *metrics
	breakers breakers
	proofs   proofs
	posts    *admission // places for refreshes
	urged    *admission // and for those that an operator asks for
	health   health
	ages     ages
	refusals trickle // of callbacks, as events

	integrations atomic.Pointer[map[string]*managed]
	conns        connTable     // the connections in use
	missed       chan struct{} // holds one word that the Feed may have missed something: see recheck
	newcomers    newcomers

	mu      sync.Mutex    // guards the two fields below
	running int           // goroutines that Wait waits for
	quiet   chan struct{} // closed when running becomes 0; nil when it is
}

// managed is an integration with what the Broker needs ready on the path of every request.
type managed struct {
	*Integration
	counters integrationMetrics
}

// New returns a Broker. It starts nothing: see [Broker.Run].
func New(cfg Config) (*Broker, error) {
	switch {
	case cfg.Store == nil:
		return nil, errors.New("authflow: Config.Store is missing")
	case cfg.Metrics == nil:
		return nil, errors.New("authflow: Config.Metrics is missing")
	}
	if u, err := url.Parse(cfg.PublicURL); err != nil || u.Host == "" || strings.HasSuffix(cfg.PublicURL, "/") {
		return nil, errors.New("authflow: Config.PublicURL must be an absolute URL without a trailing slash")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.PerOrg == nil {
		cfg.PerOrg = func(connections int) bool { return connections <= 1000 }
	}
	b := &Broker{
		cfg:      cfg,
		store:    cfg.Store,
		endpoint: newTokenEndpoint(cfg.Transport),
		log:      cfg.Log,
		metrics:  newMetrics(cfg.Metrics),
		posts:    newAdmission(postsAll, postsEach, waitingMax),
		urged:    newAdmission(urgedAll, urgedEach, waitingMax),
		missed:   make(chan struct{}, 1),
		ages:     agesOf(cfg.Alone),
	}
	return b, b.SetIntegrations(cfg.Integrations)
}

// SetIntegrations replaces the integrations. Flights that have begun end with the ones that they began with; no token is lost.
// On an error the old ones stay.
func (b *Broker) SetIntegrations(list []*Integration) error {
	set, err := b.PrepareIntegrations(list)
	if err == nil {
		set()
	}
	return err
}

// PrepareIntegrations checks integrations, and returns what puts them in the place of those before, as SetIntegrations does. Until
// that is called nothing has changed.
func (b *Broker) PrepareIntegrations(list []*Integration) (set func(), err error) {
	next := make(map[string]*managed, len(list))
	for _, given := range list {
		in := *given
		if err := in.check(); err != nil {
			return nil, err
		}
		if _, double := next[in.Name]; double {
			return nil, fmt.Errorf("authflow: integration %s is there twice", in.Name)
		}
		next[in.Name] = &managed{&in, b.metrics.of(in.Name)}
	}
	return func() { b.integrations.Store(&next) }, nil
}

// check fills in the defaults and says what is missing.
func (in *Integration) check() error {
	if in.Flow == "" {
		in.Flow = AuthorizationCode
	}
	if in.ClientAuth == "" {
		in.ClientAuth = AuthPost
	}
	if in.Refresh == "" {
		in.Refresh = Reusable
	}
	if in.Lifetime == 0 {
		in.Lifetime = time.Hour
	}
	if in.IdleLifetime == 0 {
		in.IdleLifetime = 30 * 24 * time.Hour
	}
	if in.RefreshGrace == 0 {
		in.RefreshGrace = defaultGrace
	}
	switch {
	case in.Name == "" || in.ClientID == "" || in.Resolve == nil:
		return fmt.Errorf("authflow: integration %q needs a name, a client id and a resolver", in.Name)
	case in.ClientSecret == nil && in.ClientAuth != AuthNone:
		return fmt.Errorf("authflow: integration %s needs a client secret for client_auth %s", in.Name, in.ClientAuth)
	}
	return nil
}

// Integrations returns the integrations, sorted by name.
func (b *Broker) Integrations() []*Integration {
	all := *b.integrations.Load()
	list := make([]*Integration, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[name].Integration)
	}
	return list
}

// Integration returns the integration of that name.
func (b *Broker) Integration(name string) (*Integration, bool) {
	if m := b.managed(name); m != nil {
		return m.Integration, true
	}
	return nil, false
}

func (b *Broker) managed(name string) *managed { return (*b.integrations.Load())[name] }

// spawn runs fn in a goroutine that Wait waits for, counted before it starts.
func (b *Broker) spawn(fn func()) {
	b.mu.Lock()
	if b.running++; b.quiet == nil {
		b.quiet = make(chan struct{})
	}
	b.mu.Unlock()
	go func() {
		defer func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.running--; b.running == 0 {
				close(b.quiet)
				b.quiet = nil
			}
		}()
		fn()
	}()
}

// Wait waits until no refresh is in flight and every token received is stored, or ctx ends.
func (b *Broker) Wait(ctx context.Context) error {
	for {
		b.mu.Lock()
		quiet := b.quiet
		b.mu.Unlock()
		if quiet == nil {
			return nil
		}
		select {
		case <-quiet:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
