package proxy

import (
	"net/http"
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// Every lock that can be reached from the proxy is held, the Broker's, the store's and the metrics' among them. What is warm is
// served all the same; who is new to memory waits. The request log is off: its lines must not mix.
func TestWarmRequestsTakeNoLock(t *testing.T) {
	const orgs = 200
	p := withoutNetwork(t, warm{orgs: orgs})
	var all locks
	all.find(reflect.ValueOf(p))
	require.Greater(t, len(all.found), orgs, "each connection has one")
	requests := make([]*http.Request, orgs+1)
	for i := range requests {
		requests[i] = warmRequest(t, i)
	}
	unlock := all.lock()
	served, met := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(met)
		p.ServeHTTP(&discard{header: make(http.Header)}, requests[orgs]) // not connected: what is answered does not matter
	}()
	go func() {
		defer close(served)
		for i := range 10 * orgs {
			expectServed(t, p, requests[i%orgs])
		}
	}()
	waits, passes := false, false
	select {
	case <-served:
	case <-time.After(20 * time.Second):
		waits = true
	}
	select {
	case <-met:
		passes = true
	default:
	}
	unlock() // a test has locks too
	<-served
	<-met
	require.False(t, waits, "a warm request waits for a lock")
	require.False(t, passes, "the locks are not held: an org that is not in memory was looked up")
}

// locks finds mutexes by walking over memory.
type locks struct {
	found []sync.Locker
	seen  map[place]bool
}

type place struct {
	at unsafe.Pointer
	as reflect.Type
}

// lock takes all that are found and returns what gives them back.
func (l *locks) lock() (unlock func()) {
	for _, one := range l.found {
		one.Lock()
	}
	return func() {
		for _, one := range l.found {
			one.Unlock()
		}
	}
}

// find walks over everything that v leads to, unexported fields and atomic pointers included. Funcs and channels keep theirs.
func (l *locks) find(v reflect.Value) {
	switch v.Kind() {
	case reflect.Interface:
		l.find(v.Elem())
	case reflect.Pointer:
		if !v.IsNil() {
			l.visit(v.UnsafePointer(), v.Type().Elem())
		}
	case reflect.Struct:
		l.fields(v)
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() <= reflect.Complex128 {
			return // numbers: a store's file may be mapped there
		}
		for i := range v.Len() {
			l.find(v.Index(i))
		}
	case reflect.Map:
		for each := v.MapRange(); each.Next(); {
			l.find(each.Key())
			l.find(each.Value())
		}
	}
}

// visit looks at the t that lies there, once.
func (l *locks) visit(at unsafe.Pointer, t reflect.Type) {
	if l.seen == nil {
		l.seen = make(map[place]bool)
	}
	if here := (place{at, t}); at == nil || l.seen[here] {
		return
	} else {
		l.seen[here] = true
	}
	v := reflect.NewAt(t, at)
	switch lock := v.Interface().(type) {
	case *sync.Mutex:
		l.found = append(l.found, lock)
	case *sync.RWMutex:
		l.found = append(l.found, lock)
	default:
		l.find(v.Elem())
	}
}

func (l *locks) fields(v reflect.Value) {
	t := v.Type()
	if t.PkgPath() == "sync/atomic" && t.NumField() > 0 && t.Field(0).Type.Kind() == reflect.Array { // a Pointer[T] begins with a [0]*T
		if to := v.FieldByName("v"); to.Kind() == reflect.UnsafePointer {
			l.visit(to.UnsafePointer(), t.Field(0).Type.Elem().Elem())
			return
		}
	}
	for i := range v.NumField() {
		if f := v.Field(i); f.CanAddr() {
			l.visit(f.Addr().UnsafePointer(), f.Type())
		} else {
			l.find(f)
		}
	}
}
