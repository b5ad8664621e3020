package e2e_test

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	requestEvery = 8 * time.Millisecond // at each replica
	requestsMost = 2000                 // waiting at each replica; more clients would not ask more
)

// chaosRequest is one request of a client and how it went.
type chaosRequest struct {
	node, org    string
	began, ended time.Time
	outcome      string
}

// load has clients call the API for random orgs until ctx ends. They come at a steady rate, however long those before them have to
// wait: what a replica does behind its requests it does also while others wait.
func (c *chaos) load(ctx context.Context, clients *sync.WaitGroup) {
	for _, n := range c.nodes {
		clients.Go(func() { n.watch(ctx) })
		random := c.random(n.name)
		clients.Go(func() {
			waiting := make(chan struct{}, requestsMost)
			for wait(ctx, requestEvery) {
				org := c.orgs[random.IntN(len(c.orgs))]
				select {
				case waiting <- struct{}{}:
				default:
					continue
				}
				clients.Go(func() {
					defer func() { <-waiting }()
					c.request(ctx, n, org)
				})
			}
		})
	}
}

// request makes one and takes down how it went.
func (c *chaos) request(ctx context.Context, n *chaosNode, org string) {
	request := n.get(ctx, org)
	if ctx.Err() != nil {
		return // it was cut off
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, request)
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
