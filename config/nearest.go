package config

// nearest returns the known word that key is probably a misspelling of, or nothing.
func nearest(key string, known []string) string {
	best, least := "", 1+min(3, len(key)/2)
	for _, word := range known {
		if d := distance(key, word); d < least {
			best, least = word, d
		}
	}
	return best
}

// distance counts the insertions, deletions and replacements that make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
