package console

import (
	"net/http"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

// integrationJSON is an integration as the API shows it. Scopes are those that a consent asks for. Connections is present
// only where one integration is asked for by name: the global connection first, then the orgs, sorted.
type integrationJSON struct {
	Name        string           `json:"name"`
	Description string           `json:"description"`
	Flow        authflow.Flow    `json:"flow"`
	RedirectURI string           `json:"redirect_uri"`
	Scopes      []string         `json:"scopes"`
	Connections []connectionJSON `json:"connections,omitzero"`
}

// connectionJSON is a connection as the API shows it. Times are RFC 3339 in UTC, to the second, and null when absent; lists
// are never null.
type connectionJSON struct {
	Org           tokenstore.Org  `json:"org"`
	Status        authflow.Status `json:"status"`
	PendingSince  *time.Time      `json:"pending_since"`
	LastError     *errorJSON      `json:"last_error"`
	ExpiresAt     *time.Time      `json:"expires_at"`
	LastRefreshAt *time.Time      `json:"last_refresh_at"`
	NextRefreshAt *time.Time      `json:"next_refresh_at"`
	HasRefresh    bool            `json:"has_refresh_token"`
	Scopes        []string        `json:"scopes"`
	ScopesMissing []string        `json:"scopes_missing"`
	EntityID      string          `json:"entity_id"`
	ConnectedAt   *time.Time      `json:"connected_at"`
	ConnectedBy   string          `json:"connected_by"`
	Awaiting      *awaitingJSON   `json:"awaiting_confirmation"`
}

// awaitingJSON is a consent by another account, which waits for an operator.
type awaitingJSON struct {
	ID    string     `json:"id"`
	Since *time.Time `json:"since"`
	By    string     `json:"by"`
}

type errorJSON struct {
	Code string     `json:"code"`
	Text string     `json:"text"`
	Time *time.Time `json:"time"`
}

func (c *console) integrationJSON(in *authflow.Integration) integrationJSON {
	return integrationJSON{
		Name: in.Name, Description: in.Description, Flow: flowOf(in),
		RedirectURI: authflow.RedirectURI(c.public.String(), in.Name), Scopes: list(in.Scopes),
	}
}

func jsonOf(con authflow.Connection) connectionJSON {
	out := connectionJSON{
		Org: con.Slot.Org, Status: con.Status, PendingSince: utc(con.PendingSince),
		ExpiresAt: utc(con.ExpiresAt), LastRefreshAt: utc(con.LastRefresh), NextRefreshAt: utc(con.NextRefresh), HasRefresh: con.HasRefresh,
		Scopes: list(con.Scopes), ScopesMissing: list(con.ScopesMissing), EntityID: con.EntityID,
		ConnectedAt: utc(con.ConnectedAt), ConnectedBy: con.ConnectedBy,
	}
	if a := con.Awaiting; a != nil {
		out.Awaiting = &awaitingJSON{a.ID, utc(a.Since), a.By}
	}
	if e := con.LastError; e != nil {
		out.LastError = &errorJSON{Code: e.Code, Text: e.Text, Time: utc(e.Time)}
	}
	return out
}

// utc returns nil for the absent time.
func utc(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC().Truncate(time.Second))
}

// list is s, but never null in JSON.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// flowOf returns the integration's flow with its default.
func flowOf(in *authflow.Integration) authflow.Flow {
	if in.Flow == "" {
		return authflow.AuthorizationCode
	}
	return in.Flow
}

func (c *console) listIntegrations(_ *http.Request, v visit) (any, error) {
	all := []integrationJSON{}
	for _, in := range v.sees.Integrations() {
		all = append(all, c.integrationJSON(in))
	}
	return map[string]any{"integrations": all}, nil
}

func (c *console) getIntegration(r *http.Request, v visit) (any, error) {
	in, ok := v.sees.Integration(r.PathValue("name"))
	if !ok {
		return nil, notFoundName()
	}
	connections, err := v.sees.Connections(r.Context(), in.Name)
	if err != nil {
		return nil, err
	}
	out := c.integrationJSON(in)
	out.Connections = []connectionJSON{}
	for _, con := range connections {
		out.Connections = append(out.Connections, jsonOf(con))
	}
	return out, nil
}

func (c *console) getConnection(r *http.Request, v visit) (any, error) {
	_, slot, err := c.slotOf(r, v, r.PathValue("org"))
	if err != nil {
		return nil, err
	}
	con, err := v.sees.Connection(r.Context(), slot)
	if err != nil {
		return nil, err
	}
	return jsonOf(con), nil
}

func (c *console) deleteConnection(r *http.Request, v visit) (any, error) {
	_, slot, err := c.slotOf(r, v, r.PathValue("org"))
	if err != nil {
		return nil, err
	}
	err = c.broker.Disconnect(r.Context(), slot, v.operator)
	c.logAction(r.Context(), "disconnect", v, slot, err)
	return nil, err
}

func (c *console) postRefresh(r *http.Request, v visit) (any, error) {
	_, slot, err := c.asked(r, v, &struct{}{})
	if err != nil {
		return nil, err
	}
	con, err := c.broker.Refresh(r.Context(), slot)
	return c.became(r, v, "refresh", con, slot, err)
}

func (c *console) putGrant(r *http.Request, v visit) (any, error) {
	var body struct {
		RefreshToken string `json:"refresh_token"`
	}
	in, slot, err := c.asked(r, v, &body)
	if err != nil {
		return nil, err
	}
	if !isToken(body.RefreshToken) {
		return nil, badRequest("refresh_token must be 1 to 16384 visible ASCII characters.")
	}
	if flowOf(in) == authflow.ClientCredentials {
		return nil, badRequest("This integration uses client_credentials: it has no refresh tokens.")
	}
	con, err := c.broker.Import(r.Context(), slot, body.RefreshToken, v.operator)
	return c.became(r, v, "import", con, slot, err)
}

// asked returns the connection that a call's path names, with the call's body read into body.
func (c *console) asked(r *http.Request, v visit, body any) (*authflow.Integration, tokenstore.Slot, error) {
	in, slot, err := c.slotOf(r, v, r.PathValue("org"))
	if err == nil {
		err = readJSON(r, body)
	}
	return in, slot, err
}

// became logs an action, and answers with the connection as the action left it.
func (c *console) became(r *http.Request, v visit, action string, con authflow.Connection, slot tokenstore.Slot, err error) (any, error) {
	c.logAction(r.Context(), action, v, slot, err)
	if err != nil {
		return nil, err
	}
	return jsonOf(con), nil
}

// isToken says whether s can be a refresh token (RFC 6749 appendix A.17).
func isToken(s string) bool {
	for _, b := range []byte(s) {
		if b < 0x20 || b > 0x7e {
			return false
		}
	}
	return s != "" && len(s) <= 16<<10
}
