package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"
)

// browser is what the tour needs of one: it keeps cookies, follows redirects and sends the forms that it finds on a page.
type browser struct{ client *http.Client }

func newBrowser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err) // documented never to fail
	}
	return &browser{&http.Client{Jar: jar, Timeout: 30 * time.Second}}
}

// page is one page that a browser has come to.
type page struct {
	url      *url.URL
	status   int
	location string // of a redirect that the client does not follow
	text     []byte
	forms    []form
}

// form is one form of a page; a button with a name is among its buttons and not among its fields.
type form struct {
	action  string
	fields  url.Values
	buttons url.Values
}

func (b *browser) open(ctx context.Context, address string) (*page, error) {
	return b.load(ctx, http.MethodGet, address, nil)
}

// submit sends a form of the page, with some of its fields filled in or buttons pressed.
func (b *browser) submit(ctx context.Context, from *page, f form, values url.Values) (*page, error) {
	to, err := from.url.Parse(f.action)
	if err != nil {
		return nil, err
	}
	sent := url.Values{}
	for _, source := range []url.Values{f.fields, values} {
		for name, value := range source {
			sent[name] = value
		}
	}
	return b.load(ctx, http.MethodPost, to.String(), strings.NewReader(sent.Encode()))
}

func (b *browser) load(ctx context.Context, method, address string, body io.Reader) (*page, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	res, err := b.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	forms, err := formsOf(text)
	if err != nil {
		return nil, fmt.Errorf("read the page %s: %w", res.Request.URL.Path, err)
	}
	return &page{res.Request.URL, res.StatusCode, res.Header.Get("Location"), text, forms}, nil
}

// find returns the form that wants says yes to.
func (p *page) find(what string, wanted func(form) bool) (form, error) {
	for _, f := range p.forms {
		if wanted(f) {
			return f, nil
		}
	}
	return form{}, fmt.Errorf("the page %s (status %d) has no %s", p.url.Path, p.status, what)
}

// formsOf reads the forms that a page would send by POST. The pages are ours, so a lenient XML reader is enough.
func formsOf(text []byte) ([]form, error) {
	reader := xml.NewDecoder(bytes.NewReader(text))
	reader.Strict, reader.AutoClose, reader.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var forms []form
	var open *form
	for {
		token, err := reader.Token()
		if errors.Is(err, io.EOF) {
			return forms, nil
		}
		if err != nil {
			return nil, err
		}
		switch element := token.(type) {
		case xml.StartElement:
			open = open.enter(element)
		case xml.EndElement:
			if element.Name.Local == "form" && open != nil {
				forms = append(forms, *open)
				open = nil
			}
		}
	}
}

// enter takes up an element that begins inside f, or outside of any form where f is nil.
func (f *form) enter(element xml.StartElement) *form {
	attrs := map[string]string{}
	for _, a := range element.Attr {
		attrs[a.Name.Local] = a.Value
	}
	switch tag := element.Name.Local; {
	case tag == "form" && strings.EqualFold(attrs["method"], "post"):
		return &form{action: attrs["action"], fields: url.Values{}, buttons: url.Values{}}
	case f == nil || attrs["name"] == "":
	case tag == "input":
		f.fields.Add(attrs["name"], attrs["value"])
	case tag == "button":
		f.buttons.Add(attrs["name"], attrs["value"])
	}
	return f
}

// get reads one small answer.
func get(ctx context.Context, client *http.Client, address string, header http.Header) (status int, h http.Header, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, nil, nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, res.Header, body, err
}
