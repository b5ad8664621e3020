package console_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/bifrost-proxy/bifrost/authflow/console"
)

// A program reads the state of every connection with an operator's token.
func ExampleNew() {
	handler, err := console.New(console.Config{
		Broker:    sampleBroker(),
		Sessions:  &shelf{values: map[string][]byte{}},
		PublicURL: "https://bifrost.example.com",
		Operators: []console.Operator{{Name: "ops", Token: func() string { return operatorToken }}},
	})
	if err != nil {
		panic(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/api/v1/integrations/Microsoft_Graph/connections/globex", nil)
	r.Header.Set("Authorization", "Bearer "+operatorToken)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	fmt.Println(w.Code, w.Body)
	// Output:
	// 200 {"org":"globex","status":"not_connected","pending_since":null,"last_error":null,"expires_at":null,"last_refresh_at":null,"next_refresh_at":null,"has_refresh_token":false,"scopes":[],"scopes_missing":[],"entity_id":"","connected_at":null,"connected_by":"","awaiting_confirmation":null}
}

func ExampleNew_incomplete() {
	_, err := console.New(console.Config{Broker: sampleBroker(), PublicURL: "bifrost.example.com"})
	fmt.Println(err)
	// Output: console: the public URL must be absolute
}
