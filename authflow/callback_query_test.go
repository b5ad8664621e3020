package authflow

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReadAnswer(t *testing.T) {
	for name, tc := range map[string]struct {
		query string
		want  answer
		wrong string
	}{
		"a code":                               {query: "code=c&state=s", want: answer{code: "c", state: "s"}},
		"an error":                             {query: "error=access_denied&state=s", want: answer{err: "access_denied", state: "s"}},
		"an issuer":                            {query: "code=c&state=s&iss=https%3A%2F%2Fidp.example%2F", want: answer{code: "c", state: "s", iss: "https://idp.example/"}},
		"decoded once and only once":           {query: "code=a%252Fb%2Bc&state=s", want: answer{code: "a%2Fb+c", state: "s"}},
		"unknown parameters are passed over":   {query: "session_state=x&code=c&hd=1&hd=2&state=s&a;b=c", want: answer{code: "c", state: "s"}},
		"an empty value is an absent one":      {query: "code=&error=access_denied&state=s", want: answer{err: "access_denied", state: "s"}},
		"a code of 8 KiB":                      {query: "code=" + strings.Repeat("c", maxParameter) + "&state=s", want: answer{code: strings.Repeat("c", maxParameter), state: "s"}},
		"a code over 8 KiB":                    {query: "code=" + strings.Repeat("c", maxParameter+1) + "&state=s", wrong: "too long"},
		"a query over 32 KiB":                  {query: "code=c&state=s" + strings.Repeat("&x=y", maxQuery/4), wrong: "too long"},
		"an unknown parameter over 8 KiB":      {query: "code=c&state=s&x=" + strings.Repeat("y", maxParameter+1), wrong: "too long"},
		"two codes":                            {query: "code=c&code=d&state=s", wrong: "repeated"},
		"two equal codes":                      {query: "code=c&code=c&state=s", wrong: "repeated"},
		"two codes, one spelled otherwise":     {query: "code=c&c%6fde=d&state=s", wrong: "repeated"},
		"two codes, one empty":                 {query: "code=&code=d&state=s", wrong: "repeated"},
		"two states":                           {query: "code=c&state=s&state=t", wrong: "repeated"},
		"two issuers":                          {query: "code=c&state=s&iss=a&iss=b", wrong: "repeated"},
		"two errors":                           {query: "error=a&error=b&state=s", wrong: "repeated"},
		"a code and an error":                  {query: "code=c&error=access_denied&state=s", wrong: "code and error"},
		"neither code nor error":               {query: "state=s", wrong: "no code"},
		"no state":                             {query: "code=c", wrong: "no state"},
		"nothing":                              {query: "", wrong: "no state"},
		"a line break in the code":             {query: "code=c%0d%0aX&state=s", wrong: "malformed"},
		"a NUL in the state":                   {query: "code=c&state=s%00", wrong: "malformed"},
		"a broken escape":                      {query: "code=%zz&state=s", wrong: "malformed"},
		"a letter outside ASCII in the issuer": {query: "code=c&state=s&iss=%C3%A9", wrong: "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			got, wrong := readAnswer(tc.query)
			require.Equal(t, tc.wrong, wrong)
			require.Equal(t, tc.want, got)
		})
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add("code=c&state=s&iss=i")
	f.Add("error=access_denied&state=s")
	f.Add("code=%00&&=&state")
	f.Fuzz(func(t *testing.T, query string) {
		a, wrong := readAnswer(query)
		if wrong != "" {
			require.Zero(t, a)
			return
		}
		require.NotEmpty(t, a.state)
		require.True(t, (a.code == "") != (a.err == ""))
		for _, value := range []string{a.code, a.state, a.iss, a.err} {
			require.LessOrEqual(t, len(value), maxParameter)
			require.True(t, printable(value))
		}
	})
}
