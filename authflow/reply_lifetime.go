package authflow

import (
	"strconv"
	"strings"
	"time"
)

// Lifetimes beyond these are mistakes, such as milliseconds for seconds, or at any rate not worth believing.
const (
	longLifetime   = 30 * 24 * time.Hour       // a renewable token that claims more gets clampLifetime
	clampLifetime  = 24 * time.Hour            // refreshing daily costs little; a wrong expiry costs the upstream's 401s
	absurdLifetime = 10 * 365 * 24 * time.Hour // a claim beyond this says nothing
	numberChars    = "0123456789.eE+-"         // no hexadecimal, no underscores, no infinity
)

// lifetimeOf reads expires_in: a number of seconds, quoted or not, with or without a fraction. It reports false for what says
// nothing: absent, not a number, zero, negative or absurd. A token that cannot be renewed keeps a long lifetime: cutting it
// would end the connection.
func lifetimeOf(expiresIn string, renewable bool) (time.Duration, bool) {
	expiresIn = strings.TrimSpace(expiresIn)
	if strings.Trim(expiresIn, numberChars) != "" {
		return 0, false
	}
	n, err := strconv.ParseFloat(expiresIn, 64)
	if err != nil || !(n > 0) || n > absurdLifetime.Seconds() {
		return 0, false
	}
	life := time.Duration(n * float64(time.Second))
	if renewable && life > longLifetime {
		life = clampLifetime
	}
	return life, life > 0
}
