package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestTheHubSpotClientPagesThroughContacts runs HubSpot's client, which pages by a value of the answer, while the answer holds
// the next page's address too.
func TestTheHubSpotClientPagesThroughContacts(t *testing.T) {
	t.Parallel()
	sdkProgram{integration: "hubspot", script: "hubspotsdk.mjs", settings: "rewrite_links: true", api: hubspot}.start(t).expect(
		step{"all", `{"got": ["ada@acme.example", "grace@acme.example", "bob@acme.example", "eve@acme.example", "zoe@acme.example"]}`, []string{
			"GET /crm/v3/objects/contacts?limit=2&properties=email",
			"GET /crm/v3/objects/contacts?limit=2&after=2&properties=email",
			"GET /crm/v3/objects/contacts?limit=2&after=4&properties=email",
		}},
		step{"next", `{"got": {"link": "BASE/crm/v3/objects/contacts?limit=2&after=2", "status": 200,
			"emails": ["bob@acme.example", "eve@acme.example"]}}`,
			[]string{"GET /crm/v3/objects/contacts?limit=2", "GET /crm/v3/objects/contacts?limit=2&after=2"}},
		step{"found", `{"got": {"total": 1, "emails": ["ada@acme.example"]}}`, []string{"POST /crm/v3/objects/contacts/search"}},
		step{"created", `{"got": {"id": "6", "email": "new@acme.example"}}`, []string{"POST /crm/v3/objects/contacts"}},
		step{"missing", `{"failed": {"code": 404, "category": "OBJECT_NOT_FOUND", "request": "c0de-1"}}`,
			[]string{"GET /crm/v3/objects/contacts/404?properties=email"}},
	)
}

// hubspot answers as HubSpot does.
func hubspot(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "GET /crm/v3/objects/contacts":
		hubspotPage(w, r)
	case "POST /crm/v3/objects/contacts/search":
		var search struct {
			FilterGroups []struct{ Filters []struct{ Value string } }
		}
		if err := json.NewDecoder(r.Body).Decode(&search); err != nil || len(search.FilterGroups) != 1 {
			hubspotProblem(w, r, http.StatusBadRequest, "VALIDATION_ERROR")
			return
		}
		found := hubspotContact("1", search.FilterGroups[0].Filters[0].Value)
		reply(w, r, http.StatusOK, fmt.Sprintf(`{"total":1,"results":[%s]}`, found))
	case "POST /crm/v3/objects/contacts":
		var contact struct{ Properties struct{ Email string } }
		if err := json.NewDecoder(r.Body).Decode(&contact); err != nil {
			hubspotProblem(w, r, http.StatusBadRequest, "VALIDATION_ERROR")
			return
		}
		reply(w, r, http.StatusCreated, hubspotContact("6", contact.Properties.Email))
	default:
		hubspotProblem(w, r, http.StatusNotFound, "OBJECT_NOT_FOUND")
	}
}

// hubspotPage answers with two contacts of five.
func hubspotPage(w http.ResponseWriter, r *http.Request) {
	contacts := []string{"ada", "grace", "bob", "eve", "zoe"}
	after := 0
	_, _ = fmt.Sscan(r.FormValue("after"), &after) // absent: the first page
	end := min(after+2, len(contacts))
	var results []string
	for i, name := range contacts[after:end] {
		results = append(results, hubspotContact(fmt.Sprint(after+i+1), name+"@acme.example"))
	}
	paging := ""
	if end < len(contacts) {
		paging = fmt.Sprintf(`,"paging":{"next":{"after":"%d","link":"UP/crm/v3/objects/contacts?limit=2&after=%[1]d"}}`, end)
	}
	reply(w, r, http.StatusOK, `{"results":[`+strings.Join(results, ",")+`]`+paging+`}`)
}

func hubspotContact(id, email string) string {
	const made = "2026-01-02T03:04:05.678Z"
	return fmt.Sprintf(`{"id":%q,"properties":{"email":%q},"createdAt":%q,"updatedAt":%[3]q,"archived":false}`, id, email, made)
}

func hubspotProblem(w http.ResponseWriter, r *http.Request, status int, category string) {
	reply(w, r, status, fmt.Sprintf(`{"status":"error","message":"No.","correlationId":"c0de-1","category":%q}`, category))
}
