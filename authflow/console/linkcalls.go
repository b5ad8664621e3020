package console

import (
	"net/http"
	"time"

	"github.com/bifrost-proxy/bifrost/authflow"
)

// linkJSON is an open connect link as the API shows it: whoever reads it cannot use it.
type linkJSON struct {
	ID        string     `json:"id"`
	MadeBy    string     `json:"made_by"`
	MadeAt    *time.Time `json:"made_at"`
	ExpiresAt *time.Time `json:"expires_at"`
}

func (c *console) postConnectLink(r *http.Request, v visit) (any, error) {
	body := struct {
		ExpiresIn string `json:"expires_in"`
	}{authflow.LinkLife.String()}
	in, slot, err := c.asked(r, v, &body)
	if err != nil {
		return nil, err
	}
	life, err := time.ParseDuration(body.ExpiresIn)
	if err != nil || life < time.Second || life > authflow.MaxLinkLife {
		return nil, badRequest("expires_in must be a duration such as 24h, of at least 1s and at most %s.", authflow.MaxLinkLife)
	}
	if flowOf(in) == authflow.ClientCredentials {
		return nil, badRequest("This integration uses client_credentials: there is nobody to consent.")
	}
	link, err := c.broker.ConnectLink(r.Context(), slot, v.operator, life)
	v.link = link.ID
	c.logAction(r.Context(), "link_made", v, slot, err)
	if err != nil {
		return nil, err
	}
	return map[string]any{"id": link.ID, "url": link.URL, "expires_at": utc(link.ExpiresAt)}, nil
}

func (c *console) listConnectLinks(r *http.Request, v visit) (any, error) {
	_, slot, err := c.slotOf(r, v, r.PathValue("org"))
	if err != nil {
		return nil, err
	}
	open, err := c.links.ConnectLinks(r.Context(), slot)
	if err != nil {
		return nil, err
	}
	all := []linkJSON{}
	for _, link := range open {
		all = append(all, linkJSON{link.ID, link.MadeBy, utc(link.MadeAt), utc(link.ExpiresAt)})
	}
	return map[string]any{"links": all}, nil
}

func (c *console) deleteConnectLink(r *http.Request, v visit) (any, error) {
	_, slot, err := c.slotOf(r, v, r.PathValue("org"))
	if err != nil {
		return nil, err
	}
	return nil, c.revokeLink(r, v, slot, r.PathValue("id"))
}

func (c *console) deleteConnectLinks(r *http.Request, v visit) (any, error) {
	_, slot, err := c.slotOf(r, v, r.PathValue("org"))
	if err != nil {
		return nil, err
	}
	return nil, c.revokeLinks(r, v, slot)
}

// decisionJSON names the consent that is decided about: the id of awaiting_confirmation. Without it whichever waits is meant.
type decisionJSON struct {
	ID string `json:"id"`
}

func (c *console) postConfirm(r *http.Request, v visit) (any, error) {
	var seen decisionJSON
	_, slot, err := c.asked(r, v, &seen)
	if err != nil {
		return nil, err
	}
	con, err := c.waiting.Confirm(r.Context(), slot, seen.ID, v.operator)
	return c.became(r, v, "account_confirmed", con, slot, err)
}

func (c *console) postReject(r *http.Request, v visit) (any, error) {
	var seen decisionJSON
	_, slot, err := c.asked(r, v, &seen)
	if err != nil {
		return nil, err
	}
	err = c.waiting.Reject(r.Context(), slot, seen.ID, v.operator)
	c.logAction(r.Context(), "account_rejected", v, slot, err)
	if err != nil {
		return nil, err
	}
	return c.getConnection(r, v)
}
