package authflow_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bifrost-proxy/bifrost/authflow"
	"github.com/bifrost-proxy/bifrost/authflow/authflowtest"
	"github.com/bifrost-proxy/bifrost/tokenstore"
)

func TestACredentialTellsOfItsToken(t *testing.T) {
	for name, format := range map[string]func(string) string{
		"as bearer":   nil,
		"as a header": func(access string) string { return "Token token=" + access },
	} {
		t.Run(name, func(t *testing.T) {
			s := settings{provider: authflowtest.Config{Lifetime: time.Hour}, integration: func(in *authflow.Integration) { in.Format = format }}
			inWorld(t, s, func(t *testing.T, w *world) {
				began := time.Now()
				w.connect("acme")
				cred, err := w.Token(t.Context(), slot("acme"))
				require.NoError(t, err)
				token, known := w.provider.Lookup(cred.Access())
				require.True(t, known, "the bare token, however it is sent")
				require.Equal(t, authflowtest.Access, token.Kind)
				require.Contains(t, cred.Header(), cred.Access())
				require.Equal(t, "Bearer", cred.Type())
				require.Equal(t, began.Add(time.Hour).UTC(), cred.Expiry().UTC())
				require.Equal(t, []string{"read"}, cred.Scopes())
			})
		})
	}
}

// The entity id is that of the connection whose token it is, not of the org that asked, and as it is configured now.
func TestACredentialTellsItsEntityID(t *testing.T) {
	entities := func(of map[tokenstore.Org]string) func(*authflow.Integration) {
		return func(in *authflow.Integration) {
			resolve := in.Resolve
			in.Resolve = func(org tokenstore.Org) (authflow.Endpoints, error) {
				ep, err := resolve(org)
				id, known := of[org]
				if !known {
					return authflow.Endpoints{}, errors.New("no value")
				}
				ep.EntityID = id
				return ep, err
			}
		}
	}
	all := map[tokenstore.Org]string{"acme": "acme.example", "globex": "", tokenstore.Global: "common", "umbrella": "umbrella.example"}
	inWorld(t, settings{integration: entities(all)}, func(t *testing.T, w *world) {
		for _, org := range []tokenstore.Org{"acme", "globex", tokenstore.Global} {
			w.connect(org)
		}
		require.Equal(t, "acme.example", w.use(w.Broker, "acme").EntityID())
		require.Empty(t, w.use(w.Broker, "globex").EntityID())
		require.Equal(t, "common", w.use(w.Broker, tokenstore.Global).EntityID())
		require.Equal(t, "common", w.use(w.Broker, "umbrella").EntityID(), "after a fallback")

		reloaded := w.integration
		entities(map[tokenstore.Org]string{"acme": "acme.org"})(&reloaded)
		require.NoError(t, w.SetIntegrations([]*authflow.Integration{&reloaded}))
		require.Equal(t, "acme.org", w.use(w.Broker, "acme").EntityID())
		require.Empty(t, w.use(w.Broker, "globex").EntityID(), "a value was taken away")
	})
}

func TestACredentialForTestsKnowsNothingElse(t *testing.T) {
	cred := authflow.NewCredential(slot("acme"), "Bearer CANARY-token")
	require.Equal(t, "Bearer CANARY-token", cred.Header())
	require.Equal(t, "CANARY-token", cred.Access())
	require.Equal(t, "Bearer", cred.Type())
	require.Zero(t, cred.Expiry())
	require.Nil(t, cred.Scopes())
	require.Empty(t, cred.EntityID())
	require.Equal(t, "CANARY-key", authflow.NewCredential(slot("acme"), "CANARY-key").Access())
}
