package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// TestTheSlackClientPostsForms runs Slack's WebClient, which posts every call as a form, pages by cursors, waits as long as a
// 429 says before it tries again, and gets most errors with status 200.
func TestTheSlackClientPostsForms(t *testing.T) {
	t.Parallel()
	sdkProgram{integration: "slack", script: "slacksdk.mjs", basePath: "/api", api: new(slack).answer}.start(t).expect(
		step{"posted", `{"got": {"channel": "C1", "scopes": ["chat:write", "users:read"],
			"message": {"text": "Lift-off = 100 % ☂", "blocks": [{"type": "section",
				"text": {"type": "mrkdwn", "text": "*Lift-off* & <https://acme.example|more>"}}]}}}`,
			[]string{"POST /api/chat.postMessage"}},
		step{"members", `{"got": ["ada", "grace", "bob", "eve", "zoe"]}`,
			[]string{"POST /api/users.list", "POST /api/users.list", "POST /api/users.list"}},
		step{"limited", `{"got": {"waits": [1], "name": "launches"}}`,
			[]string{"POST /api/conversations.info", "POST /api/conversations.info"}},
		step{"uploaded", `{"got": {"image_bytes": 300000}}`, []string{"POST /api/users.setPhoto"}},
		step{"unknown", `{"failed": {"code": "slack_webapi_platform_error", "error": "channel_not_found"}}`,
			[]string{"POST /api/chat.postMessage"}},
	)
}

// slack answers as Slack does, and refuses the first look at a channel for a second.
type slack struct{ looks atomic.Int32 }

func (s *slack) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-OAuth-Scopes", "chat:write,users:read")
	switch method := strings.TrimPrefix(r.URL.Path, "/api/"); {
	case r.Method != http.MethodPost:
		reply(w, r, http.StatusOK, `{"ok":false,"error":"invalid_post_type"}`)
	case method == "chat.postMessage" && r.FormValue("channel") == "C1":
		text, _ := json.Marshal(r.FormValue("text")) // a string always works
		reply(w, r, http.StatusOK, fmt.Sprintf(`{"ok":true,"channel":"C1","message":{"text":%s,"blocks":%s}}`, text, r.FormValue("blocks")))
	case method == "chat.postMessage":
		reply(w, r, http.StatusOK, `{"ok":false,"error":"channel_not_found"}`)
	case method == "users.list":
		slackMembers(w, r)
	case method == "conversations.info" && s.looks.Add(1) == 1:
		w.Header().Set("Retry-After", "1")
		reply(w, r, http.StatusTooManyRequests, `{"ok":false,"error":"ratelimited"}`)
	case method == "conversations.info":
		reply(w, r, http.StatusOK, `{"ok":true,"channel":{"id":"C1","name":"launches"}}`)
	case method == "users.setPhoto":
		slackPhoto(w, r)
	default:
		reply(w, r, http.StatusOK, `{"ok":false,"error":"unknown_method"}`)
	}
}

// slackMembers answers with two of the members, after the cursor.
func slackMembers(w http.ResponseWriter, r *http.Request) {
	type page struct{ members, next string }
	pages := map[string]page{
		"":                         {`{"name":"ada"},{"name":"grace"}`, "dXNlcjpVMDYxTkZUVDI="},
		"dXNlcjpVMDYxTkZUVDI=":     {`{"name":"bob"},{"name":"eve"}`, "dXNlcjpVMDYxTkZUVDI+/z=="},
		"dXNlcjpVMDYxTkZUVDI+/z==": {`{"name":"zoe"}`, ""},
	}
	found, ok := pages[r.FormValue("cursor")]
	if !ok || r.FormValue("limit") != "2" {
		reply(w, r, http.StatusOK, `{"ok":false,"error":"invalid_cursor"}`)
		return
	}
	reply(w, r, http.StatusOK, fmt.Sprintf(`{"ok":true,"members":[%s],"response_metadata":{"next_cursor":%q}}`, found.members, found.next))
}

// slackPhoto counts the bytes of the photo that comes as a part of the body.
func slackPhoto(w http.ResponseWriter, r *http.Request) {
	photo, _, err := r.FormFile("image")
	if err != nil {
		reply(w, r, http.StatusOK, `{"ok":false,"error":"bad_image"}`)
		return
	}
	size, _ := io.Copy(io.Discard, photo) // it is in memory
	reply(w, r, http.StatusOK, fmt.Sprintf(`{"ok":true,"profile":{"image_bytes":%d}}`, size))
}
