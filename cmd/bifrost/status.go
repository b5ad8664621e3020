package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"
)

// connection is what status and refresh show of the API's connections.
type connection struct {
	Org       string     `json:"org"`
	Status    string     `json:"status"`
	ExpiresAt *time.Time `json:"expires_at"`
	LastError *struct {
		Code string `json:"code"`
		Text string `json:"text"`
	} `json:"last_error"`
}

// runStatus lists every connection of every integration.
func runStatus(ctx context.Context, args []string, std stdio) error {
	fs := newFlags("status")
	asJSON := fs.Bool("json", false, "print what the API answers")
	connect := apiFlags(fs, std)
	if _, err := parse(fs, args, std); err != nil {
		return err
	}
	api, err := connect()
	if err != nil {
		return err
	}
	integrations, err := fetchStatus(ctx, api)
	if err != nil {
		return err
	}
	if *asJSON {
		out := json.NewEncoder(std.out)
		out.SetIndent("", "  ")
		return out.Encode(map[string]any{"integrations": integrations})
	}
	return printStatus(std.out, integrations)
}

// fetchStatus returns the API's answer for each integration, unread, so that -json leaves nothing out.
func fetchStatus(ctx context.Context, api *api) ([]json.RawMessage, error) {
	var list struct {
		Integrations []struct{ Name string }
	}
	if err := api.call(ctx, http.MethodGet, "/api/v1/integrations", nil, &list); err != nil {
		return nil, err
	}
	answers := make([]json.RawMessage, len(list.Integrations))
	for i, in := range list.Integrations {
		if err := api.call(ctx, http.MethodGet, "/api/v1/integrations/"+url.PathEscape(in.Name), nil, &answers[i]); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

func printStatus(w io.Writer, integrations []json.RawMessage) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "INTEGRATION\tORG\tSTATUS\tEXPIRES\tLAST ERROR")
	for _, answer := range integrations {
		var in struct {
			Name        string
			Connections []connection
		}
		if err := json.Unmarshal(answer, &in); err != nil {
			return err
		}
		for _, c := range in.Connections {
			trouble := "-"
			if c.LastError != nil {
				trouble = c.LastError.Code + ": " + c.LastError.Text
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", in.Name, c.Org, c.Status, moment(c.ExpiresAt), trouble)
		}
	}
	return table.Flush()
}

// moment prints a time in UTC, and an absent one as a dash.
func moment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
