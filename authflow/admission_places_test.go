package authflow

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// queue has so many places wait, each in a goroutine that holds its place until the test ends.
func queue(t *testing.T, a *admission, n int, integration string, urgent bool) []*place {
	var all []*place
	for i := range n {
		p := &place{urgent: urgent}
		all = append(all, p)
		go func() { // ends when it has its place, or with the test
			_, _ = a.enter(t.Context(), p, integration, fmt.Sprint(integration, i), nil)
		}()
		synctest.Wait()
	}
	return all
}

func holding(a *admission, all []*place) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range all {
		if p.held {
			n++
		}
	}
	return n
}

func TestIntegrationHoldsNoMorePlacesThanAreLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(64, 16, 1000)
		require.Equal(t, 32, holding(a, queue(t, a, 200, "a", true)))
		require.Equal(t, 16, holding(a, queue(t, a, 200, "b", true)))
		require.Equal(t, 8, holding(a, queue(t, a, 200, "c", true)))
		require.Equal(t, 1, holding(a, queue(t, a, 1, "d", true)), "there is always room for another")
	})
}

func TestPlaceThatIsLeftGoesToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(4, 2, 1000)
		first := queue(t, a, 2, "a", false)
		behind := queue(t, a, 3, "a", false)
		urgent := queue(t, a, 1, "a", true)
		first[0].leave()
		synctest.Wait()
		require.Equal(t, 1, holding(a, urgent), "somebody waits for it")
		behind[2].raise(a)
		first[1].leave()
		synctest.Wait()
		require.True(t, behind[2].held, "somebody waits for it now")
		urgent[0].leave()
		behind[2].leave()
		synctest.Wait()
		require.Equal(t, 2, holding(a, behind))
		behind[0].leave()
		behind[1].leave()
		require.Empty(t, a.lines)
		require.Empty(t, a.urls)
		require.Zero(t, a.waiting)
	})
}

func TestWhoHasWaitedBeforeWaitsInFront(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(64, 1, 1000)
		enter := func(p *place) *place {
			go func() { _, _ = a.enter(t.Context(), p, "a", "url", nil) }() // ends with its place, or the test
			synctest.Wait()
			return p
		}
		again := enter(new(place))
		next := enter(new(place))
		last := enter(new(place))
		again.leave()
		enter(again)
		require.True(t, next.held)
		next.leave()
		synctest.Wait()
		require.True(t, again.held)
		again.leave()
		synctest.Wait()
		require.True(t, last.held)
	})
}

func TestNumberOfThoseWhoWaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(2, 1, 10)
		queue(t, a, 11, "a", false)
		_, err := a.enter(t.Context(), new(place), "a", "url", nil)
		require.ErrorIs(t, err, errCrowded)
	})
}

func TestPlaceIsGivenUpWithTheWaitForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission(2, 1, 10)
		queue(t, a, 1, "a", false)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := a.enter(ctx, new(place), "a", "url", nil)
		require.ErrorIs(t, err, context.Canceled)
		require.Zero(t, a.waiting)
		hurry := make(chan struct{})
		close(hurry)
		_, err = a.enter(t.Context(), new(place), "a", "url", hurry)
		require.ErrorIs(t, err, errHurry)
		require.Zero(t, a.waiting)
	})
}
