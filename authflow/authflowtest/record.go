package authflowtest

import (
	"net/http"
	"net/url"
	"slices"
	"time"
)

// Post is one POST to the token or revocation endpoint, as it arrived. It holds secrets.
type Post struct {
	GrantType    string
	Code         string
	RefreshToken string
	Form         url.Values
	Header       http.Header
	Query        url.Values
	Tenant       string
	Time         time.Time
}

// Sighting is one request to the API.
type Sighting struct {
	Method, Path, Query string // as they arrived, undecoded
	Header              http.Header
	Value               string // of the access token; empty: there was none
	Token               Token  // zero if the value is unknown
	OK                  bool   // whether it was let in
	Time                time.Time
}

// record is what the provider has seen. Provider.mu guards it.
type record struct {
	posts       []Post
	revocations []Post
	sightings   []Sighting
	strays      []string
	running     int
	most        int
}

// arrive takes a POST down and says how to treat it.
func (p *Provider) arrive(post Post) Behaviour {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.record.posts = append(p.record.posts, post)
	p.record.running++
	p.record.most = max(p.record.most, p.record.running)
	return p.plan.take(post)
}

func (p *Provider) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.record.running--
}

func (p *Provider) stray(r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.record.strays = append(p.record.strays, r.Method+" "+r.URL.Path)
}

// Posts returns every POST to the token endpoint, oldest first.
func (p *Provider) Posts() []Post {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.record.posts)
}

// Count returns the number of POSTs to the token endpoint with this grant_type; empty: all.
func (p *Provider) Count(grantType string) int {
	n := 0
	for _, post := range p.Posts() {
		if grantType == "" || post.GrantType == grantType {
			n++
		}
	}
	return n
}

// Refreshes returns how often each refresh token was POSTed.
func (p *Provider) Refreshes() map[string]int {
	counts := map[string]int{}
	for _, post := range p.Posts() {
		if post.GrantType == "refresh_token" {
			counts[post.RefreshToken]++
		}
	}
	return counts
}

// MaxConcurrent returns the largest number of token POSTs that ran at the same time.
func (p *Provider) MaxConcurrent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.record.most
}

// Revocations returns every POST to the revocation endpoint.
func (p *Provider) Revocations() []Post {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.record.revocations)
}

// Sightings returns every request to the API.
func (p *Provider) Sightings() []Sighting {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.record.sightings)
}

// Strays returns method and path of every request to no endpoint of the provider: whoever followed a Redirect is here.
func (p *Provider) Strays() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.record.strays)
}

// Reuses returns every reuse of a code or refresh token; each has revoked its grant.
func (p *Provider) Reuses() []Reuse {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ledger.reuses)
}
