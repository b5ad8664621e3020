package authflowtest

import "sync"

// Gate holds POSTs until the test releases them. Inside a synctest bubble make it inside that bubble.
type Gate struct {
	arrived, released chan struct{}
	first, open       sync.Once
}

// NewGate returns a closed Gate.
func NewGate() *Gate {
	return &Gate{arrived: make(chan struct{}), released: make(chan struct{})}
}

// Arrived is closed when the first POST waits at the gate: as HoldBefore it has not been processed, as HoldAfter it has.
func (g *Gate) Arrived() <-chan struct{} { return g.arrived }

// Release lets every POST pass, now and later.
func (g *Gate) Release() { g.open.Do(func() { close(g.released) }) }

func (g *Gate) arrive() { g.first.Do(func() { close(g.arrived) }) }
