package authflow

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEachClassIsPacedByItself(t *testing.T) {
	for name, c := range map[string]struct {
		in   Integration
		want timing
	}{
		"reusable": {Integration{Refresh: Reusable},
			timing{post: 15 * time.Second, lease: 20 * time.Second, beat: 5 * time.Second, spare: 16 * time.Second, grace: withoutEnd}},
		"one-time": {Integration{Refresh: OneTime},
			timing{post: 30 * time.Second, lease: time.Minute, beat: 10 * time.Second, spare: 31 * time.Second}},
		"one-time with a slow provider": {Integration{Refresh: OneTime, TokenTimeout: time.Minute},
			timing{post: time.Minute, lease: 2 * time.Minute, beat: 20 * time.Second, spare: 61 * time.Second}},
		"rotating with the usual grace": {Integration{Refresh: Rotating},
			timing{post: 10 * time.Second, lease: 7500 * time.Millisecond, beat: 1875 * time.Millisecond, spare: 1875 * time.Millisecond, grace: 30 * time.Second}},
		"rotating with a long grace": {Integration{Refresh: Rotating, RefreshGrace: 10 * time.Minute},
			timing{post: 20 * time.Second, lease: 10 * time.Second, beat: 2500 * time.Millisecond, spare: 2500 * time.Millisecond, grace: 10 * time.Minute}},
		"rotating with a slow provider": {Integration{Refresh: Rotating, RefreshGrace: time.Minute, TokenTimeout: time.Minute},
			timing{post: 20 * time.Second, lease: 10 * time.Second, beat: 2500 * time.Millisecond, spare: 2500 * time.Millisecond, grace: time.Minute}},
		"client credentials have no refresh token": {Integration{Flow: ClientCredentials, Refresh: OneTime},
			timing{post: 15 * time.Second, lease: 20 * time.Second, beat: 5 * time.Second, spare: 16 * time.Second, grace: withoutEnd}},
	} {
		require.Equal(t, c.want, c.in.timing(), name)
	}
}

func TestARefreshTokenIsUsedAgainWhereTheAnswerComesInTime(t *testing.T) {
	first := time.Now()
	at := func(in Integration, since time.Duration) bool { return in.timing().again(first, first.Add(since)) }
	require.True(t, at(Integration{Refresh: Reusable}, 1000*time.Hour))
	require.True(t, at(Integration{Refresh: Rotating}, 20*time.Second))
	require.False(t, at(Integration{Refresh: Rotating}, 20*time.Second+time.Millisecond), "the answer might come after the grace")
	require.False(t, at(Integration{Refresh: OneTime}, 0))
	require.False(t, at(Integration{Refresh: OneTime}, -time.Hour), "nor when a clock was put back")
}
