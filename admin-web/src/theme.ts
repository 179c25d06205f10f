// Light, dark, or as the system says. A preference of the browser, not of the account.
export type Theme = 'system' | 'light' | 'dark'

const KEY = 'holdfast-theme'

export function storedTheme(): Theme {
  const stored = window.localStorage.getItem(KEY)
  return stored === 'light' || stored === 'dark' ? stored : 'system'
}

export function applyTheme(theme: Theme): void {
  document.documentElement.dataset['theme'] = theme
  if (theme === 'system') window.localStorage.removeItem(KEY)
  else window.localStorage.setItem(KEY, theme)
}
