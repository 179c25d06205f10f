import './styles.css'

import { StrictMode } from 'react'
import { createRoot } from 'react-dom/client'

import { App } from './app.tsx'
import { applyTheme, storedTheme } from './theme.ts'

const root = document.getElementById('root')
if (root === null) throw new Error('index.html has no #root')
applyTheme(storedTheme())
createRoot(root).render(
  <StrictMode>
    <App />
  </StrictMode>,
)
