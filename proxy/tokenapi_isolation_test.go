package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestATokenOfAnotherConnectionIsNeverGiven(t *testing.T) {
	for name, slot := range map[string]tokenstore.Slot{
		"another org":         {Integration: "Microsoft_Graph", Org: "globex"},
		"another integration": {Integration: "Other", Org: "acme"},
		"no org":              {Integration: "Microsoft_Graph"},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, nil, exposed)
			b.broker.token = func(context.Context, tokenstore.Slot) (authflow.Credential, error) {
				return authflow.NewCredential(slot, "Bearer CANARY-token"), nil
			}
			res, body := b.get(t, tokenURL)
			requireProblem(t, res, body, 503, "record_unreadable")
			require.Empty(t, res.Header.Get("X-Bifrost-Connection"))
			require.Contains(t, b.logs.String(), "a credential of another connection was refused")
			require.NotContains(t, b.logs.String(), "CANARY")
		})
	}
}

func TestTokensOfManyOrgsAtOnceNeverMix(t *testing.T) {
	b := start(t, nil, exposed)
	for i := range 16 {
		org := fmt.Sprint("org-", i)
		t.Run(org, func(t *testing.T) {
			t.Parallel()
			for range 50 {
				_, text := b.get(t, tokenURL, "X-Org-ID: "+org)
				var got tokenBody
				require.NoError(t, json.Unmarshal([]byte(text), &got), text)
				require.NotNil(t, got.Org)
				require.Equal(t, org, *got.Org)
				require.Equal(t, "CANARY-token-"+org, got.OAuth.AccessToken)
			}
		})
	}
}
