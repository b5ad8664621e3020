package authflow

import (
	"context"
	"encoding/json"
	"slices"
	"time"
)

// noteChunk bounds how many connections are asked for at once.
const noteChunk = 500

// noteShelf fills in what the Shelf keeps beside the connections: since when consents are running, whether one waits for an operator,
// and how many connect links are open. Not knowing it is no reason to show nothing.
func (b *Broker) noteShelf(ctx context.Context, m *managed, list []Connection) {
	for chunk := range slices.Chunk(list, noteChunk) {
		if err := b.noteSome(ctx, m, chunk); err != nil {
			b.log.Debug("running consents and connect links are not shown", "error", err)
			return
		}
	}
}

func (b *Broker) noteSome(ctx context.Context, m *managed, list []Connection) error {
	now := time.Now()
	var ids []string
	for _, con := range list {
		ids = append(ids, pendingID(con.Slot), candidateID(con.Slot), linkListID(con.Slot))
	}
	found, err := b.store.Peek(ctx, ids...)
	if err != nil {
		return err
	}
	var links []string
	var of []*Connection
	for i := range list {
		con, found := &list[i], found[3*i:]
		if t, err := time.Parse(time.RFC3339, string(found[0])); err == nil {
			con.PendingSince = t
		}
		switch c := candidateOf(found[1]); {
		case c == nil:
		case c.awaits(con.grant, now):
			con.Awaiting = &Awaiting{c.id(), c.Since, c.By}
		default:
			b.spawn(func() { b.clearCandidate(context.Background(), m, con.Slot) })
		}
		var made linkList
		if found[2] != nil && json.Unmarshal(found[2], &made) == nil {
			for _, id := range made.Open {
				links, of = append(links, entryID(con.Slot, id)), append(of, con)
			}
		}
	}
	if len(links) == 0 {
		return nil
	}
	if found, err = b.store.Peek(ctx, links...); err != nil {
		return err
	}
	for i, raw := range found {
		if openEntry(raw, now) != nil {
			of[i].OpenLinks++
		}
	}
	return nil
}
