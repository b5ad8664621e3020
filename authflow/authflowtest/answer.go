package authflowtest

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Answer is one HTTP answer of the token endpoint.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// JSON returns a JSON answer.
func JSON(status int, members map[string]any) *Answer {
	body, err := json.Marshal(members)
	if err != nil {
		panic(err) // a test passed what is not JSON
	}
	return &Answer{
		Status: status, Body: body,
		Header: http.Header{"Content-Type": {"application/json;charset=UTF-8"}, "Cache-Control": {"no-store"}},
	}
}

// write sends the answer, or half of it.
func (a *Answer) write(w http.ResponseWriter, cut bool) {
	maps.Copy(w.Header(), a.Header)
	w.Header().Set("Content-Length", strconv.Itoa(len(a.Body)))
	w.WriteHeader(a.Status)
	if !cut {
		_, _ = w.Write(a.Body) // the client may have gone
		return
	}
	_, _ = w.Write(a.Body[:len(a.Body)/2])
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// Raw answers status, content type and body without processing the POST.
func Raw(status int, contentType, body string) Behaviour {
	return Behaviour{Instead: &Answer{Status: status, Header: http.Header{"Content-Type": {contentType}}, Body: []byte(body)}}
}

// OAuthError answers an error of RFC 6749 section 5.2, with a description that must not leak. It takes any status.
func OAuthError(status int, code string) Behaviour {
	return Behaviour{Instead: JSON(status, map[string]any{"error": code, "error_description": "CANARY-description"})}
}

// Status answers without an OAuth body, with a Retry-After unless it is empty.
func Status(status int, retryAfter string) Behaviour {
	b := Raw(status, "text/plain", "CANARY-body")
	if retryAfter != "" {
		b.Instead.Header.Set("Retry-After", retryAfter)
	}
	return b
}

// HTML answers a page, as firewalls and captive portals do.
func HTML(status int) Behaviour {
	return Raw(status, "text/html", "<!doctype html><title>CANARY-page</title>")
}

// Redirect answers a redirect; see Provider.Strays for whether anybody followed it.
func Redirect(status int, location string) Behaviour {
	b := Raw(status, "text/plain", "")
	b.Instead.Header.Set("Location", location)
	return b
}

// Relabel processes the POST and labels the answer wrongly.
func Relabel(contentType string) Behaviour {
	return Behaviour{Rewrite: func(a *Answer) { a.Header.Set("Content-Type", contentType) }}
}

// Wrap processes the POST and puts bytes around the body: a byte order mark, a second value.
func Wrap(before, after string) Behaviour {
	return Behaviour{Rewrite: func(a *Answer) { a.Body = slices.Concat([]byte(before), a.Body, []byte(after)) }}
}

// Truncate processes the POST and answers only the first n bytes, as a complete body.
func Truncate(n int) Behaviour {
	return Behaviour{Rewrite: func(a *Answer) { a.Body = a.Body[:min(n, len(a.Body))] }}
}

// Without processes the POST and leaves members out of the answer.
func Without(names ...string) Behaviour {
	return Behaviour{Rewrite: edit(func(members map[string]json.RawMessage) {
		for _, name := range names {
			delete(members, name)
		}
	})}
}

// Member processes the POST and sets a member of the answer to a raw JSON value: `"3600"`, `-1`, `false`.
func Member(name, value string) Behaviour {
	return Behaviour{Rewrite: edit(func(members map[string]json.RawMessage) { members[name] = json.RawMessage(value) })}
}

// Duplicate processes the POST and adds a member that may be there already.
func Duplicate(name, value string) Behaviour {
	return Behaviour{Rewrite: func(a *Answer) {
		a.Body = append(bytes.TrimSuffix(a.Body, []byte("}")), `,"`+name+`":`+value+`}`...)
	}}
}

// Form processes the POST and answers form-encoded, as some providers do unless asked for JSON.
func Form() Behaviour {
	return Behaviour{Rewrite: func(a *Answer) {
		var members map[string]any
		if json.Unmarshal(a.Body, &members) != nil {
			return
		}
		form := url.Values{}
		for name, value := range members {
			raw, _ := json.Marshal(value) // it was JSON a moment ago
			form.Set(name, strings.Trim(string(raw), `"`))
		}
		a.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		a.Body = []byte(form.Encode())
	}}
}

// edit changes the members of a JSON answer and leaves every value as it was written.
func edit(change func(map[string]json.RawMessage)) func(*Answer) {
	return func(a *Answer) {
		members := map[string]json.RawMessage{}
		if json.Unmarshal(a.Body, &members) != nil {
			return
		}
		change(members)
		a.Body = JSON(a.Status, asAny(members)).Body
	}
}

func asAny(members map[string]json.RawMessage) map[string]any {
	out := make(map[string]any, len(members))
	for name, value := range members {
		out[name] = value
	}
	return out
}
