package tokenstore

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"
)

// Packed is a Record in one piece of memory, a third of its size and without a pointer that the garbage collector would have to
// follow: for who keeps ten thousand of them. It contains secrets, in the clear; it lives in memory only, and no other release
// or process may be given one. The zero Packed is no record. It may be shared, being immutable.
type Packed struct{ text string }

// Pack packs a record.
func Pack(r *Record) Packed {
	p := packer{buf: make([]byte, 0, 512)}
	p.texts(string(r.Grant), r.Write, r.Token.Access, r.Token.Refresh, r.Token.Type, r.Account, r.Client, r.ConnectedBy)
	p.numbers(r.Generation, r.Revision, r.Fence)
	p.times(r.Token.Expiry, r.Connected, r.Refreshed, r.Used, r.Forced, r.Due)
	p.flag(r.Suspect)
	p.flag(r.Scopes != nil)
	p.numbers(int64(len(r.Scopes)))
	p.texts(r.Scopes...)
	p.rest(rareOf(r))
	return Packed{string(p.buf)}
}

// Format prints [redacted] for every verb.
func (Packed) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) } // fmt ignores write errors too

// LogValue logs [redacted].
func (Packed) LogValue() slog.Value { return slog.StringValue(redacted) }

// IsZero reports whether there is no record.
func (p Packed) IsZero() bool { return p.text == "" }

// Record unpacks the record, with its times in UTC; nil if there is none. The caller owns it.
func (p Packed) Record() *Record {
	if p.IsZero() {
		return nil
	}
	r, u := new(Record), unpacker{p.text}
	r.Grant = GrantID(u.text())
	for _, to := range []*string{&r.Write, &r.Token.Access, &r.Token.Refresh, &r.Token.Type, &r.Account, &r.Client, &r.ConnectedBy} {
		*to = u.text()
	}
	for _, to := range []*int64{&r.Generation, &r.Revision, &r.Fence} {
		*to = u.number()
	}
	for _, to := range []*time.Time{&r.Token.Expiry, &r.Connected, &r.Refreshed, &r.Used, &r.Forced, &r.Due} {
		*to = u.time()
	}
	r.Suspect = u.flag()
	if u.flag() {
		r.Scopes = []string{}
	}
	for range u.number() {
		r.Scopes = append(r.Scopes, u.text())
	}
	u.rest().to(r)
	return r
}

// rare is what few records have.
type rare struct {
	Extra   map[string]string          `json:",omitempty"`
	Failure *Failure                   `json:",omitempty"`
	Intent  *Intent                    `json:",omitempty"`
	Later   map[string]json.RawMessage `json:",omitempty"`
}

// rareOf returns nil where there is nothing of it.
func rareOf(r *Record) *rare {
	if r.Extra == nil && r.Failure == nil && r.Intent == nil && r.later == nil {
		return nil
	}
	return &rare{r.Extra, r.Failure, r.Intent, r.later}
}

func (s *rare) to(r *Record) {
	if s != nil {
		r.Extra, r.Failure, r.Intent, r.later = s.Extra, s.Failure, s.Intent, s.Later
	}
}

type packer struct{ buf []byte }

func (p *packer) texts(list ...string) {
	for _, s := range list {
		p.buf = append(binary.AppendUvarint(p.buf, uint64(len(s))), s...)
	}
}

func (p *packer) numbers(list ...int64) {
	for _, n := range list {
		p.buf = binary.AppendVarint(p.buf, n)
	}
}

func (p *packer) times(list ...time.Time) {
	for _, t := range list {
		p.numbers(t.Unix(), int64(t.Nanosecond()))
	}
}

func (p *packer) flag(f bool) {
	p.buf = append(p.buf, 0)
	if f {
		p.buf[len(p.buf)-1] = 1
	}
}

func (p *packer) rest(s *rare) {
	if s == nil {
		return
	}
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // times that a store would refuse, or fields of a later release that are no JSON: neither can be in a Record that was read or saved
	}
	p.buf = append(p.buf, text...)
}

// unpacker reads what a packer wrote; nothing else ever comes to it.
type unpacker struct{ left string }

func (u *unpacker) text() string {
	n := u.uvarint()
	s := u.left[:n]
	u.left = u.left[n:]
	return s
}

func (u *unpacker) uvarint() (n uint64) {
	for shift := 0; ; shift += 7 {
		b := u.left[0]
		u.left = u.left[1:]
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
}

func (u *unpacker) number() int64 {
	n := u.uvarint() // zig-zag, as binary.AppendVarint writes it
	return int64(n>>1) ^ -int64(n&1)
}

func (u *unpacker) time() time.Time {
	sec, nsec := u.number(), u.number()
	return time.Unix(sec, nsec).UTC()
}

func (u *unpacker) flag() bool {
	f := u.left[0] == 1
	u.left = u.left[1:]
	return f
}

func (u *unpacker) rest() *rare {
	if u.left == "" {
		return nil
	}
	s := new(rare)
	if err := json.Unmarshal([]byte(u.left), s); err != nil {
		panic(err) // it was written by rest
	}
	return s
}
