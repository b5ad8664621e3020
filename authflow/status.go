package authflow

import (
	"time"

	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// Status is the state of a connection, computed from its record (contract, section 4).
type Status string

// The statuses.
const (
	NotConnected   Status = "not_connected"
	Active         Status = "active"
	Degraded       Status = "degraded"
	Expiring       Status = "expiring"
	NeedsReconnect Status = "needs_reconnect"
)

// Statuses lists every Status, for metrics and tests.
var Statuses = []Status{NotConnected, Active, Degraded, Expiring, NeedsReconnect}

// Connection is what may be shown of one connection. It contains no secret. Absent times are zero.
type Connection struct {
	Slot          tokenstore.Slot
	Status        Status
	PendingSince  time.Time // a consent is running
	LastError     *LastError
	ExpiresAt     time.Time
	LastRefresh   time.Time
	NextRefresh   time.Time
	HasRefresh    bool // whether there is a refresh token
	Scopes        []string
	ScopesMissing []string
	EntityID      string
	ConnectedAt   time.Time
	ConnectedBy   string
	Fallback      bool // not_connected, but requests use the global connection
}

// LastError is why the last refresh failed, without secrets and without provider text.
type LastError struct {
	Code string
	Text string
	Time time.Time
}
