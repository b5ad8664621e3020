package e2e_test

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	clientsPerNode = 4
	clientPause    = 15 * time.Millisecond
)

// chaosRequest is one request of a client and how it went.
type chaosRequest struct {
	node, org    string
	began, ended time.Time
	outcome      string
}

// load starts clients that call the API for random orgs until ctx ends, each through one replica, so that those who wait for a
// replica that stands still do not keep the others from being asked.
func (c *chaos) load(ctx context.Context, clients *sync.WaitGroup) {
	for _, n := range c.nodes {
		clients.Go(func() { n.watch(ctx) })
		for i := range clientsPerNode {
			random := c.random(n.name + string(rune('a'+i)))
			clients.Go(func() {
				for wait(ctx, clientPause) {
					request := n.get(ctx, c.orgs[random.IntN(len(c.orgs))])
					if ctx.Err() != nil {
						return // it was cut off
					}
					c.mu.Lock()
					c.requests = append(c.requests, request)
					c.mu.Unlock()
				}
			})
		}
	}
}

// get asks the API for an org.
func (n *chaosNode) get(ctx context.Context, org string) chaosRequest {
	r := chaosRequest{node: n.name, org: org, began: time.Now()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.proxy+"/graph/me/"+org, nil)
	if err != nil {
		r.outcome = err.Error()
		return r
	}
	req.Header.Set("Authorization", "Bearer "+callerKey)
	req.Header.Set("X-Org-ID", org)
	ans, err := n.do(req)
	if r.outcome = outcome(ans, err); err != nil {
		r.outcome = "no answer" // the error names a port
	}
	r.ended = time.Now()
	return r
}

// do sends a request; any goroutine may.
func (n *chaosNode) do(req *http.Request) (answer, error) {
	resp, err := n.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}, err
}
